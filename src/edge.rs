//! What touches the world: HTTP in and out, processes, files.
//!
//! - [`api`]: the documents of the HTTP interface, shared by the server and the commands that ask it;
//! - [`ingest`]: samples over HTTP into the log;
//! - [`lag`]: what consumer groups on Kafka have to read, as samples;
//! - [`policies`]: policy files, announced in rounds;
//! - [`observe`]: what is seen of replicas, as signals;
//! - [`actuate`]: commands into the world, at most once;
//! - [`processes`]: fleets of local processes, which the two above see and scale;
//! - `registry`: schemas of records that others frame by a schema registry's ids;
//! - [`log_watch`]: tells of a log that cannot be written;
//! - [`view`]: what is known now, in memory, fed by the log;
//! - [`shown`]: decide, whose evaluations the view sees;
//! - [`metrics`]: the same, as Prometheus reads it;
//! - [`serve`]: the HTTP server over all of that.

pub mod actuate;
pub mod api;
pub(crate) mod durable_file;
pub mod events;
pub mod ingest;
pub mod lag;
pub mod log_watch;
pub mod metrics;
pub mod observe;
pub mod policies;
pub mod processes;
#[cfg(feature = "kafka")]
pub mod registry;
pub mod serve;
pub mod shown;
pub(crate) mod stop;
pub mod view;

#[cfg(test)]
pub(crate) mod testing;
