//! What touches the world: HTTP, processes, files.

pub mod actuate;
mod durable_file;
pub mod observe;
pub mod processes;
mod stop;
