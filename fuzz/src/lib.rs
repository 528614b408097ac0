//! What must hold of any input, one function a parser at the edge.
//!
//! A check panics where its promise is broken. libFuzzer calls them (`fuzz_targets/`), and so does `tests/fuzz_corpora.rs`,
//! over the corpora and their mutations: the checks are the same, the inputs are not.

pub mod amounts;
pub mod avro;
pub mod container;
pub mod http;
pub mod lines;
pub mod policy;
pub mod replay;

/// A check.
pub type Check = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Check); 7] = [
    ("amounts", amounts::check),
    ("avro", avro::check),
    ("container", container::check),
    ("http", http::check),
    ("lines", lines::check),
    ("policy", policy::check),
    ("replay", replay::check),
];

/// The longest message that is useful to anyone, in bytes: a hundred of them fit into one answer or alert.
const LONGEST_MESSAGE: usize = 4096;

/// What a person is told of bad input: something, on one line, without what would disturb a terminal or a log.
pub(crate) fn said(message: &str) {
    assert!(!message.trim().is_empty(), "a message says nothing");
    assert!(!message.chars().any(char::is_control), "a message has control characters: {message:?}");
    assert!(message.len() <= LONGEST_MESSAGE, "a message has {} bytes: {}…", message.len(), message.chars().take(200).collect::<String>());
}
