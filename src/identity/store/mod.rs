pub mod grants;
pub mod repeats;
pub mod tokens;
