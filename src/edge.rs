//! What touches the world: HTTP in and out, processes, files.
//!
//! - [`api`]: the documents of the HTTP interface, shared by the server and the commands that ask it;
//! - [`ingest`]: samples over HTTP into the log;
//! - [`policies`]: policy files, announced in rounds;
//! - [`view`]: what is known now, in memory, fed by the log;
//! - [`serve`]: the HTTP server over all of that.

pub mod api;
pub mod ingest;
pub mod policies;
pub mod serve;
mod suggest;
pub mod view;

pub use suggest::closest;

#[cfg(test)]
pub(crate) mod testing;
