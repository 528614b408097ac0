//! `loadline scale`: sets a target's count by hand, as any hand from outside would.

use std::io::Write;

use super::client::{Client, ServerArgs};
use super::{Output, actor};
use crate::edge::api::{ScaleRequest, Scaled, target_path};

/// Set a target's count by hand. Its policy stays in force and goes on from there; to hold a count,
/// set the policy's mode to Off.
///
/// A count beyond the policy's minimum and maximum is refused, unless it is said to be meant.
///
/// Exit codes: 0 done, 1 refused or not reachable, 2 wrong usage.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  loadline scale local/ProcessFleet/storefront 8 --reason \"launch at noon\"\n  loadline scale storefront 8 --output json")]
pub struct ScaleArgs {
    /// The target: namespace/Kind/name, or its end where that is unique
    #[arg(value_hint = clap::ValueHint::Other)]
    target: String,
    /// How many replicas
    #[arg(value_parser = count)]
    replicas: u32,
    /// Why; it is recorded
    #[arg(long)]
    reason: Option<String>,
    /// Who; it is recorded [default: the login name, under sudo with the one who became it: root (sudo of anna)]
    #[arg(long)]
    actor: Option<String>,
    /// A count beyond the policy's minimum or maximum is meant; it is recorded so
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "that is no count; write a whole number, as in `8`".to_owned())
}

/// Does it.
///
/// # Errors
/// Where the server cannot be reached or refuses.
pub fn run(args: ScaleArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let client = Client::new(&args.server);
    let target = client.target(&args.target)?;
    let actor = args.actor.unwrap_or_else(actor::of_this_process);
    let request = ScaleRequest { replicas: args.replicas, actor, reason: args.reason, force: args.force };
    let scaled: Scaled = client.post(&format!("{}/scale", target_path(&target)), &request)?;
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string(&scaled)?)?,
        Output::Text if scaled.from == scaled.to => writeln!(out, "{} already asks for {}", scaled.target, scaled.to)?,
        Output::Text => writeln!(out, "{}: {} → {}; {}", scaled.target, scaled.from, scaled.to, scaled.note)?,
    }
    Ok(0)
}
