pub mod grants;
pub mod principals;
pub mod repeats;
pub mod tokens;
