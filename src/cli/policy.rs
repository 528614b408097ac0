//! `loadline policy`: checks, explains, tests and compares policies in files, without a running Loadline.
//!
//! Exit codes: 0 all is fine; 1 a policy has an error (or a warning, with `--deny-warnings`); 2 a file cannot be read,
//! or the command line is wrong.

mod diff;
mod explain;
pub(crate) mod render;
mod sarif;
pub(super) mod testing;
mod together;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use crate::edge::policies::{MAX_FILE_BYTES, files_in};
use crate::model::document::amounts::duration;
use crate::model::document::{Node, Problem, Severity, Value};
use crate::wire::document::PolicyFile;

use super::counted;
use super::documents::{documents_for, fleets_of};
pub use diff::DiffFormat;
pub use testing::TestFormat;

/// The policies are fine.
const FINE: u8 = 0;
/// A policy has an error.
const FAULTY: u8 = 1;
/// A file cannot be read.
const UNREADABLE: u8 = 2;

/// `loadline policy …`.
#[derive(Debug, Clone, Args)]
pub struct PolicyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What `loadline policy` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum PolicyCommand {
    /// Check policies: every error and warning at once, with its place and how to mend it
    #[command(
        after_help = "Examples:\n  loadline policy check policies\n  loadline policy check --deny-warnings --output sarif policy.yaml > policy.sarif\n\n\
                      Exit codes: 0 fine; 1 errors (or warnings, with --deny-warnings); 2 a file cannot be read"
    )]
    Check {
        /// The files, or folders, of which the files are read that `run` reads; `-` is the standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Count warnings as errors
        #[arg(long)]
        deny_warnings: bool,
        /// The length of the installation's panes, which windows are held against
        #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = pane)]
        pane: Duration,
        /// The format
        #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
        output: CheckFormat,
        /// When to use colours
        #[arg(long, value_enum, default_value_t = Colours::Auto)]
        color: Colours,
    },
    /// Test policies: play fleets and series of metrics, and compare what is decided with what must be
    #[command(
        after_help = "Examples:\n  loadline policy test examples/*/policy_test.yaml\n  loadline policy test --output junit policy_test.yaml > report.xml\n\n\
                      Exit codes: 0 every test passed; 1 one failed, or a document has an error; 2 a file cannot be read"
    )]
    Test {
        /// The files of tests
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Only tests whose name holds this text
        #[arg(long, value_name = "TEXT")]
        run: Option<String>,
        /// The format
        #[arg(long, value_enum, default_value_t = TestFormat::Text)]
        output: TestFormat,
        /// When to use colours
        #[arg(long, value_enum, default_value_t = Colours::Auto)]
        color: Colours,
    },
    /// Compare two policies in effect: every value that differs, also where a default makes the difference
    #[command(
        after_help = "Examples:\n  loadline policy diff old.yaml new.yaml\n  git show HEAD:policy.yaml | loadline policy diff - policy.yaml --output markdown\n\n\
                      Exit codes: 0 they say the same; 1 they differ; 2 one of them cannot be used"
    )]
    Diff {
        /// The one; `-` is the standard input
        before: PathBuf,
        /// The other; `-` is the standard input
        after: PathBuf,
        /// The format
        #[arg(long, value_enum, default_value_t = DiffFormat::Text)]
        output: DiffFormat,
        /// When to use colours
        #[arg(long, value_enum, default_value_t = Colours::Auto)]
        color: Colours,
    },
    /// Explain policies: the effective document, each value with where it comes from and what it means
    #[command(
        after_help = "Examples:\n  loadline policy explain policy.yaml\n  loadline policy explain --pane 1s policy.yaml\n  loadline policy explain --output json policies\n\n\
                      Exit codes: 0 fine; 1 errors; 2 a file cannot be read"
    )]
    Explain {
        /// The files, or folders, of which the files are read that `run` reads; `-` is the standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The length of the installation's panes, in which windows are counted and against which they are held
        #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = pane)]
        pane: Duration,
        /// How to print
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// The format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// When to use colours
    #[arg(long, value_enum, default_value_t = Colours::Auto)]
    pub color: Colours,
}

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The format of what `check` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// For people
    Text,
    /// For programs
    Json,
    /// SARIF 2.1.0, for code review
    Sarif,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colours {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Colours {
    fn wanted(self) -> bool {
        match self {
            Colours::Auto => std::io::stdout().is_terminal(),
            Colours::Always => true,
            Colours::Never => false,
        }
    }
}

/// What to print, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text, which ends with a line break.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

/// Runs the command and returns its exit code.
///
/// # Errors
/// Where `out` cannot be written.
pub fn run(args: &PolicyArgs, out: &mut impl Write) -> anyhow::Result<u8> {
    let answer = match &args.command {
        PolicyCommand::Check { files, deny_warnings, pane, output, color } => check(&read_all(files), *output, color.wanted(), *deny_warnings, *pane),
        PolicyCommand::Test { files, run, output, color } => testing::run(files, run.as_deref(), *output, color.wanted()),
        PolicyCommand::Diff { before, after, output, color } => diff::diff(&read(before), &read(after), *output, color.wanted()),
        PolicyCommand::Explain { files, pane, output } => explain(&read_all(files), *pane, *output),
    };
    out.write_all(answer.text.as_bytes()).context("failed to print the answer")?;
    Ok(answer.code)
}

/// A file with its text, or why it has none.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its text, or why it cannot be read.
    pub text: Result<String, String>,
}

/// The documents of every source, with every problem, for panes of this length; none of what cannot be read.
fn documents_of(sources: &[Source], pane: Duration) -> Vec<PolicyFile> {
    let mut files: Vec<PolicyFile> =
        sources.iter().map(|s| s.text.as_ref().map_or_else(|_| PolicyFile::default(), |text| documents_for(text, &s.name, pane))).collect();
    refuse_doubles(&mut files);
    files
}

/// Checks every file: its problems, and two policies for one target.
pub fn check(sources: &[Source], format: CheckFormat, colours: bool, deny_warnings: bool, pane: Duration) -> Answer {
    let mut files = documents_of(sources, pane);
    together::advise(&mut files);
    let count = |severity| files.iter().flat_map(PolicyFile::all_problems).filter(|p| p.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let unreadable = sources.iter().filter(|s| s.text.is_err()).count();
    let code = match (unreadable, errors, warnings) {
        (1.., ..) => UNREADABLE,
        (0, 1.., _) => FAULTY,
        (0, 0, 1..) if deny_warnings => FAULTY,
        _ => FINE,
    };
    let text = match format {
        CheckFormat::Json => render::json(sources, &files),
        CheckFormat::Sarif => sarif::sarif(sources, &files),
        CheckFormat::Text => {
            let mut text = String::new();
            render::all(&mut text, sources, &files, colours);
            let policies: usize = files.iter().map(|f| f.documents.len()).sum();
            let others = |tests: bool| files.iter().flat_map(|f| &f.others).filter(|o| testing::is_test(&o.kind) == tests).count();
            let (fleets, tests) = (others(false), others(true));
            let mut what = Vec::new();
            if policies > 0 || fleets + tests == 0 {
                what.push(counted(policies, "policy", "policies"));
            }
            if fleets > 0 {
                what.push(counted(fleets, "fleet", "fleets"));
            }
            if tests > 0 {
                what.push(counted(tests, "document of tests", "documents of tests"));
            }
            let (files, errors) = (counted(sources.len() - unreadable, "file", "files"), counted(errors, "error", "errors"));
            let _ = writeln!(text, "{} in {files}: {errors}, {}", what.join(" and "), counted(warnings, "warning", "warnings"));
            text
        }
    };
    Answer { text, code }
}

/// The effective document of every policy of the files, and the problems of every file, for panes of this length.
pub fn explain(sources: &[Source], pane: Duration, output: OutputArgs) -> Answer {
    let files = documents_of(sources, pane);
    let code = match (sources.iter().any(|s| s.text.is_err()), files.iter().any(PolicyFile::has_errors)) {
        (true, _) => UNREADABLE,
        (false, true) => FAULTY,
        (false, false) => FINE,
    };
    let text = match output.output {
        Format::Json => explain::json(sources, &files, pane),
        Format::Text => {
            let mut answer = explain::text(&files, pane);
            let mut problems = String::new();
            render::all(&mut problems, sources, &files, output.color.wanted());
            if !problems.is_empty() && !answer.is_empty() {
                answer.push('\n');
            }
            answer + &problems
        }
    };
    Answer { text, code }
}

fn pane(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(60);
    duration(&Node::bare(Value::Text(text.to_owned())), longest).map_err(|fault| format!("{}; {}", fault.message, fault.mend))
}

/// Two policies for one target, or two documents of one fleet: an error at the second that names the first.
fn refuse_doubles(files: &mut [PolicyFile]) {
    let mut fleets: BTreeMap<String, String> = BTreeMap::new();
    for file in &mut *files {
        for (target, span) in fleets_of(file) {
            let here = span.map_or_else(|| file.file.clone(), |s| format!("{}:{}:{}", file.file, s.line, s.column));
            match fleets.get(target.as_str()) {
                Some(there) => file.problems.push(Problem {
                    path: "metadata.name".into(),
                    span,
                    severity: Severity::Error,
                    message: format!("{target} has a document already, at {there}"),
                    mend: Some("keep one of the two".into()),
                    code: "duplicate-target",
                }),
                None => drop(fleets.insert(target.as_str().to_owned(), here)),
            }
        }
    }
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        for document in &mut file.documents {
            let Some(target) = &document.target else { continue };
            let here = document.target_span.map_or_else(|| file.file.clone(), |s| format!("{}:{}:{}", file.file, s.line, s.column));
            if let Some(there) = first.get(target.as_str()) {
                document.problems.push(Problem {
                    path: "spec.target".into(),
                    span: document.target_span,
                    severity: Severity::Error,
                    message: format!("{target} has a policy already, at {there}"),
                    mend: Some("keep one of the two".into()),
                    code: "duplicate-target",
                });
            } else {
                first.insert(target.as_str().to_owned(), here);
            }
        }
    }
}

/// The files that are named, and those of the folders that are.
fn read_all(named: &[PathBuf]) -> Vec<Source> {
    named.iter().flat_map(|path| if path.is_dir() { read_folder(path) } else { vec![read(path)] }).collect()
}

/// The files of a folder that `run` would read; a folder without one is nobody's aim.
fn read_folder(folder: &Path) -> Vec<Source> {
    let unreadable = |why: String| vec![Source { name: folder.display().to_string(), text: Err(why) }];
    match files_in(folder) {
        Ok(files) if files.is_empty() => {
            unreadable("no policy file is in this folder: none whose name ends in .yaml or .yml, but for loadline.yaml".to_owned())
        }
        Ok(files) => files.iter().map(|file| read(file)).collect(),
        Err(error) => unreadable(error.to_string()),
    }
}

pub(super) fn read(file: &Path) -> Source {
    use std::io::Read;
    let name = file.display().to_string();
    let mut bytes = Vec::new();
    // As `run` says it: what it would refuse is not checked in part. Standard input may hold many files.
    let most = if name == "-" { 64 * MAX_FILE_BYTES } else { MAX_FILE_BYTES };
    let read = if name == "-" {
        std::io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(most + 1).read_to_end(&mut bytes))
    };
    let fits = |read: usize| match read as u64 > most {
        true => Err(format!("has more than {most} bytes; split it into several files")),
        false => Ok(()),
    };
    let text = if name != "-" && file.is_dir() {
        Err(format!("it is a folder; name the files in it, as in `{}`", file.join("*.yaml").display()))
    } else {
        read.map_err(|e| unreadable(&e)).and_then(fits).and_then(|()| text_of(bytes))
    };
    Source { name, text }
}

/// Why a file cannot be read, with what may mend it.
fn unreadable(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    match error.kind() {
        NotFound => format!("{error}; see that its name is right, and that it is looked for from this folder"),
        PermissionDenied => format!("{error}; let this user read it"),
        _ => error.to_string(),
    }
}

/// The bytes of a file as text, or why they are none.
fn text_of(bytes: Vec<u8>) -> Result<String, String> {
    const MEND: &str = "save it as UTF-8 text, or name a YAML file";
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16 text; save it as UTF-8".to_owned());
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(format!("it is no text: byte {at} is 0; {MEND}"));
    }
    String::from_utf8(bytes).map_err(|e| format!("it is no UTF-8 text: {}; {MEND}", e.utf8_error()))
}

#[cfg(test)]
mod tests;
