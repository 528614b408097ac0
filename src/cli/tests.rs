//! The commands that ask a running Loadline, through its real port; and that the documentation writes every command as it is taken.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Error, Parser};

use super::{Cli, scale, status, why};
use crate::edge::api::{Status, Story};
use crate::edge::serve::tests::started;
use crate::edge::testing::Running;
use crate::edge::view::tests::{at, decision, policy};
use crate::model::{Audit, Signal};

#[derive(Parser)]
#[command(no_binary_name = true)]
enum Commands {
    Status(status::StatusArgs),
    Why(why::WhyArgs),
    Scale(scale::ScaleArgs),
}

fn run(server: &Running, line: &str) -> Result<String, String> {
    let words = line.split(' ').chain(["--server", server.base.as_str()]);
    let mut out = Vec::new();
    let code = match Commands::try_parse_from(words).unwrap() {
        Commands::Status(args) => status::run(&args, &mut out),
        Commands::Why(args) => why::run(&args, &mut out),
        Commands::Scale(args) => scale::run(args, &mut out),
    };
    code.map(|code| assert_eq!(code, 0)).map_err(|e| format!("{e:#}"))?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn status_why_and_scale_work_through_the_port() {
    let (view, _, server) = started();
    view.audit(at(11), Audit::Decision(decision(10, 3, 5)));
    view.audit(at(21), Audit::Decision(decision(20, 5, 6)));
    assert!(run(&server, "status").unwrap().contains("prod/Deployment/api"));
    let status: Status = serde_json::from_str(&run(&server, "status --output json").unwrap()).unwrap();
    assert_eq!(status.targets[0].desired, Some(6));
    assert!(run(&server, "why api").unwrap().starts_with("prod/Deployment/api scales out from 5 to 6 replicas\n"));
    let story: Story = serde_json::from_str(&run(&server, "why prod/Deployment/api --at 2025-11-24T16:00:15Z --output json").unwrap()).unwrap();
    assert_eq!(story.decision.sequence, 10);
    let spec =
        r#"{"target":{"apiVersion":"apps/v1","kind":"Deployment","name":"api"},"replicas":{"max":30},"metrics":[{"name":"rps","track":{"perReplica":100}}]}"#;
    view.signal(at(1), Signal::Policy(policy(1, Some(spec))));
    assert_eq!(run(&server, "scale api 8 --actor ana").unwrap(), "prod/Deployment/api: 3 → 8; its policy goes on from there; set mode: Off to hold it\n");
    let refused = run(&server, "scale api 80 --actor ana").unwrap_err();
    assert!(refused.starts_with("80 is more than the maximum, 30,") && refused.contains("--force"), "{refused}");
    let forced = run(&server, "scale api 80 --actor ana --force").unwrap();
    assert_eq!(forced, "prod/Deployment/api: 3 → 80; its policy's maximum is 30, so it shrinks to that; set mode: Off to hold it\n");
}

#[test]
fn what_cannot_be_answered_says_the_way_out() {
    let (view, _, server) = started();
    view.audit(at(11), Audit::Decision(decision(10, 3, 5)));
    for (line, error) in [
        ("why prod/Deployment/apii", "there is no target prod/Deployment/apii; did you mean prod/Deployment/api?"),
        ("why ap", "there is no target ap; did you mean prod/Deployment/api?"),
        ("why api --at 2025-11-24T15:00:00Z", "no decision about prod/Deployment/api at or before 2025-11-24T15:00:00Z is left in the log"),
        ("scale api 101 --actor ana", "its port range has 10 ports; see loadline status"),
    ] {
        assert_eq!(run(&server, line).unwrap_err(), error, "{line}");
    }
}

/// The words of the `loadline` commands in a line of a shell, without its comment and what the shell does with them.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word, mut quote) = (vec![Vec::new()], Vec::new(), String::new(), None);
    let mut quoted = false;
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '\'' | '"') => (quote, quoted) = (Some(c), true),
            (None, '#') if word.is_empty() && !quoted => break,
            (None, '|' | '>' | '<' | '&' | ';') if word.is_empty() => {
                commands.push(std::mem::take(&mut words));
                // What follows a redirection is a file: a command of one word that is not `loadline`.
            }
            (None, ' ') if word.is_empty() && !quoted => {}
            (None, ' ') => {
                words.push(std::mem::take(&mut word));
                quoted = false;
            }
            (_, c) => word.push(c),
        }
    }
    commands.push(words);
    let starts = |words: &Vec<String>| words.iter().position(|word| word == "loadline" || word.ends_with("release/loadline"));
    commands.iter().filter_map(|words| Some(words[starts(words)?..].to_vec())).filter(|words| words.len() > 1).collect()
}

/// A `loadline` command of the documentation.
struct Documented {
    /// Page and line.
    place: String,
    /// Whether it is named in a sentence, where what it needs may be left out or stand in capitals.
    is_named: bool,
    words: Vec<String>,
}

/// Every `loadline` command of the documentation.
fn documented() -> Vec<Documented> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let pages: Vec<PathBuf> = pages.chain(["README.md", "schemas/README.md"].map(|page| root.join(page))).collect();
    let mut all = Vec::new();
    for page in pages {
        let (name, text) = (page.strip_prefix(root).unwrap().display().to_string(), std::fs::read_to_string(&page).unwrap());
        let (mut shell, mut fence, mut begun) = (false, false, String::new());
        for (index, line) in text.lines().enumerate() {
            let mut add = |text: &str, is_named: bool| {
                let of = |words| Documented { place: format!("{name}:{}", index + 1), is_named, words };
                all.extend(commands(text).into_iter().map(of));
            };
            if let Some(kind) = line.trim_start().strip_prefix("```") {
                (fence, shell) = (!fence, !fence && ["sh", "console"].contains(&kind));
            } else if shell {
                if let Some(part) = line.strip_suffix('\\') {
                    begun.push_str(part);
                } else {
                    let whole = std::mem::take(&mut begun) + line;
                    add(whole.strip_prefix("$ ").unwrap_or(&whole), false);
                }
            } else if !fence {
                line.split('`').skip(1).step_by(2).filter(|span| span.starts_with("loadline ")).for_each(|span| add(span, true));
            }
        }
    }
    all
}

#[test]
fn every_command_of_the_documentation_is_one_that_is_taken() {
    let is_wrong = |error: &Error, is_named: bool| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => false,
        ErrorKind::MissingRequiredArgument | ErrorKind::MissingSubcommand | ErrorKind::InvalidValue | ErrorKind::ValueValidation => !is_named,
        _ => true,
    };
    let documented = documented();
    let wrong: Vec<String> = documented
        .iter()
        .filter_map(|Documented { place, is_named, words }| {
            let error = Cli::try_parse_from(words).err().filter(|error| is_wrong(error, *is_named))?;
            Some(format!("{place}: {}: {error}", words.join(" ")))
        })
        .collect();
    let written = documented.iter().filter(|command| !command.is_named).count();
    assert!(written > 40 && documented.len() > 150, "only {written} of {} commands are found in blocks", documented.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
