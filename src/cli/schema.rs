//! `loadline schema`: JSON Schemas of the documents that people write, made of what their readers tell of themselves.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::config;
use super::policy::testing;
use crate::edge::processes;
use crate::wire::document::KINDS;
use crate::wire::document::schema::{map, scaling_policy, titled};

/// Print the JSON Schema (draft-07) of a kind of document, for editors that complete and check YAML by it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline schema > loadline.schema.json                  # every kind; the kind of a document decides
  loadline schema Configuration > loadline-config.schema.json

In a document, for editors with the YAML language server:
  # yaml-language-server: $schema=loadline.schema.json")]
pub struct SchemaArgs {
    /// The kind of document; every kind that has a `kind` where none is named
    #[arg(value_enum)]
    kind: Option<Kind>,
}

/// The kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Kind {
    /// How a target scales
    ScalingPolicy,
    /// Copies of a command that Loadline runs
    ProcessFleet,
    /// Tests of policies
    PolicyTest,
    /// loadline.yaml
    Configuration,
}

/// Prints it.
///
/// # Errors
/// Where `out` cannot be written.
pub fn run(args: &SchemaArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let schema = match args.kind {
        None => every_kind(),
        Some(kind) => titled(title(kind), of(kind)),
    };
    writeln!(out, "{}", serde_json::to_string_pretty(&schema)?)?;
    Ok(0)
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::ScalingPolicy => "Loadline's ScalingPolicy",
        Kind::ProcessFleet => "Loadline's ProcessFleet",
        Kind::PolicyTest => "Loadline's PolicyTest",
        Kind::Configuration => "Loadline's configuration, loadline.yaml",
    }
}

fn of(kind: Kind) -> Value {
    match kind {
        Kind::ScalingPolicy => scaling_policy(),
        Kind::ProcessFleet => map(&processes::outline(), ""),
        Kind::PolicyTest => map(&testing::document::outline(), ""),
        Kind::Configuration => config::schema(),
    }
}

/// One for all documents that have a `kind`, which decides.
fn every_kind() -> Value {
    let mut definitions = Map::new();
    let mut rules = Vec::new();
    for kind in [Kind::ScalingPolicy, Kind::ProcessFleet, Kind::PolicyTest] {
        let name = format!("{kind:?}");
        rules.push(json!({
            "if": { "required": ["kind"], "properties": { "kind": { "const": name } } },
            "then": { "$ref": format!("#/definitions/{name}") },
        }));
        definitions.insert(name, of(kind));
    }
    titled(
        "Loadline's documents",
        json!({
            "type": "object",
            "required": ["apiVersion", "kind"],
            "properties": { "kind": { "enum": KINDS } },
            "allOf": rules,
            "definitions": definitions,
        }),
    )
}

#[cfg(test)]
mod tests;
