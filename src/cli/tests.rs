//! The commands that ask a running Loadline, through its real port.

use clap::Parser;

use super::{scale, status, why};
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
