//! Colours, where somebody sees them.

use std::io::IsTerminal;

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(bool);

impl Paint {
    /// Never.
    pub const PLAIN: Paint = Paint(false);

    /// Where standard output is a terminal that understands colours, and `NO_COLOR` is not set.
    pub fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Paint(!unwanted && std::io::stdout().is_terminal())
    }

    /// What is chosen.
    pub fn chosen(self, text: &str) -> String {
        self.with("7", text)
    }

    /// What stands out.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What stands back.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// More replicas; all is well.
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    /// Fewer replicas; to look at.
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// What is wrong.
    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
