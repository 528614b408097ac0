//! A page of the documentation, as a test reads it: its fenced blocks and its tables.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::path::Path;

/// A fenced block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// What stands behind the fence, as in "sh" or "text example".
    pub(crate) info: String,
    /// What stands in it.
    pub(crate) text: String,
    /// The line of its fence.
    pub(crate) line: usize,
}

/// A page.
pub(crate) struct Page {
    name: String,
    /// All of it.
    pub(crate) text: String,
    /// Its blocks, in order.
    pub(crate) blocks: Vec<Block>,
}

impl Page {
    /// Reads the page at this path of the repository.
    pub(crate) fn read(name: &str) -> Page {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (line, number) in text.lines().zip(1..) {
            match (line.strip_prefix("```"), open.as_mut()) {
                (Some(info), None) => open = Some(Block { info: info.trim().to_owned(), text: String::new(), line: number }),
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{name}: a block is not closed");
        Page { name: name.to_owned(), text, blocks }
    }

    /// The first block of this kind.
    pub(crate) fn block(&self, info: &str) -> &Block {
        self.blocks.iter().find(|b| b.info == info).unwrap_or_else(|| panic!("{}: no block {info:?}", self.name))
    }

    /// The cells of the table whose first heading is this one: the headings, then each row.
    pub(crate) fn table(&self, heading: &str) -> Vec<Vec<String>> {
        let begin = format!("| {heading} |");
        let lines = self.text.lines().skip_while(|line| !line.starts_with(&begin)).take_while(|line| line.starts_with('|'));
        let rows = lines.enumerate().filter(|(n, _)| *n != 1).map(|(_, line)| line);
        let cells = |line: &str| line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let rows: Vec<Vec<String>> = rows.map(cells).collect();
        assert!(rows.len() > 1, "{}: no table begins with {begin:?}", self.name);
        rows
    }
}
