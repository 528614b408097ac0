//! What touches the world: HTTP, processes, files.

pub mod policies;
