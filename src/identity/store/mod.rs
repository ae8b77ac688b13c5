pub mod grants;
pub mod tokens;
