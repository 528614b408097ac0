//! Documents that people write: YAML to located trees, and the policies among them.
//!
//! What a policy means is `model::policy`'s. A file may hold several documents, each read on its own; a `ScalingPolicy` is resolved,
//! a `ProcessFleet` is given back as its tree, and everything else is an error, so that no document is passed over.

mod parts;
pub mod schema;
mod slips;
mod yaml;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::document::{Node, Problem, Severity, Span, Value, shorten};
use crate::model::policy::{DEFAULT_PANE, Policy, Setting, habit_of_document, resolve_for, target_of};
use crate::model::spelling::nearest;
use crate::model::{LOCAL_NAMESPACE, TargetId};

pub use yaml::{Document, documents, from_yaml};

/// The kinds of documents.
pub const KINDS: [&str; 3] = ["ScalingPolicy", "ProcessFleet", "PolicyTest"];

/// The `apiVersion` of Loadline's own documents.
pub const API_VERSION: &str = "loadline.dev/v1alpha1";

/// The fields of a document: what the API server keeps beside an object is nobody's mistake.
const ENVELOPE: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
/// Besides its name, what an object may carry, and what the API server adds to it.
const METADATA: [&str; 12] = [
    "namespace",
    "name",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "ownerReferences",
    "finalizers",
];

/// One `ScalingPolicy` of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedPolicy {
    /// The name of the policy itself, where it has one.
    pub name: Option<String>,
    /// Its target, where that could be read.
    pub target: Option<TargetId>,
    /// Whether its namespace is written, and not that of its kind of target.
    pub namespace_is_written: bool,
    /// Where the target stands.
    pub target_span: Option<Span>,
    /// The written `spec` as canonical JSON, for `PolicyEntry::spec`.
    pub spec_json: String,
    /// The policy in force; `None` where there are errors.
    pub policy: Option<Policy>,
    /// Every effective value with where it comes from, in the order of the reference.
    pub settings: Vec<Setting>,
    /// Where each written field stands, by its path.
    pub places: BTreeMap<String, Span>,
    /// Errors and warnings of this document.
    pub problems: Vec<Problem>,
}

/// A document of a kind that somebody else reads.
#[derive(Debug, Clone, PartialEq)]
pub struct OtherDocument {
    /// Its kind.
    pub kind: String,
    /// The document.
    pub node: Node,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyFile {
    /// The file's name, for messages.
    pub file: String,
    /// Its policies, in their order.
    pub documents: Vec<ParsedPolicy>,
    /// Its documents of other known kinds (`ProcessFleet`, `PolicyTest`), in their order.
    pub others: Vec<OtherDocument>,
    /// Problems of no policy: a document that is not YAML, an unknown kind.
    pub problems: Vec<Problem>,
    /// How many documents are not YAML: what they are for is not known.
    pub unread: usize,
}

impl PolicyFile {
    /// All problems of the file and its policies, in the order of the text.
    pub fn all_problems(&self) -> Vec<&Problem> {
        let mut all: Vec<&Problem> = self.problems.iter().chain(self.documents.iter().flat_map(|d| &d.problems)).collect();
        all.sort_by_key(|p| p.span.map_or((0, 0), |s| (s.line, s.column)));
        all
    }

    /// Whether anything in it cannot be used.
    pub fn has_errors(&self) -> bool {
        self.all_problems().iter().any(|p| p.severity == Severity::Error)
    }
}

/// Reads the documents of the file `name`, whose text is `text`, each on its own. With an error in any of them what the file said
/// before stays in force.
pub fn policies_in(text: &str, name: &str) -> PolicyFile {
    policies_for(text, name, DEFAULT_PANE)
}

/// As [`policies_in`], with the warnings of an installation whose panes have this length.
pub fn policies_for(text: &str, name: &str, pane: Duration) -> PolicyFile {
    let mut file = PolicyFile { file: name.to_owned(), ..PolicyFile::default() };
    for Document { node, problems } in documents(text) {
        if let Some(node) = node {
            sort_in(node, problems, pane, &mut file);
        } else {
            file.problems.extend(problems);
            file.unread += 1;
        }
    }
    file
}

/// Takes in a document with what is wrong with it as YAML.
fn sort_in(node: Node, mut problems: Vec<Problem>, pane: Duration, file: &mut PolicyFile) {
    if node.value == Value::Null {
        return; // An empty document: a `---` at the end, a file of comments.
    }
    let error = |path: &str, at: Option<&Node>, code, message: String, mend: String| Problem {
        path: path.to_owned(),
        span: at.or(Some(&node)).and_then(|n| n.span),
        severity: Severity::Error,
        message,
        mend: Some(mend),
        code,
    };
    if !matches!(node.value, Value::Map(_)) {
        file.problems.push(error(
            "",
            None,
            "type",
            format!("a document must be a map, this is {}", node.describe()),
            "begin with `apiVersion` and `kind`".into(),
        ));
        return;
    }
    let kind = node.get("kind");
    // What a kind that is nearly right was meant for is checked as that: one slip hides no other.
    let mut meant = KINDS.into_iter().find(|known| kind.and_then(Node::as_text) == Some(known));
    match kind.and_then(Node::as_text) {
        Some(_) if meant.is_some() => {}
        Some(other) => {
            let message = match habit_of_document(other) {
                Some(whose) => format!("this is {whose}, which Loadline does not read"),
                None => format!("unknown kind {:?}", shorten(other)),
            };
            let translated = habit_of_document(other)
                .map(|_| format!("did you mean `kind: ScalingPolicy`, with `apiVersion: {API_VERSION}`? what each field is called there: docs/from-hpa.md"));
            meant = nearest(other, KINDS).filter(|_| translated.is_none());
            let near = meant.map(|known| format!("did you mean `{known}`?"));
            let mend = translated.or(near).unwrap_or_else(|| format!("Loadline reads {}", KINDS.join(", ")));
            problems.push(error("kind", kind, "unknown-kind", message, mend));
        }
        None if ["rule_files", "evaluation_interval", "tests"].iter().any(|name| node.get(name).is_some()) => {
            let mend = format!(
                "begin with `apiVersion: {API_VERSION}` and `kind: PolicyTest`, and write the rest within `spec`, with `policies` for `rule_files`: docs/policy.md"
            );
            problems.push(error("kind", kind, "missing-field", "`kind` is missing; the fields are those of promtool's tests".into(), mend));
        }
        None => problems.push(error(
            "kind",
            kind,
            "missing-field",
            "`kind` is missing".into(),
            "write `kind: ScalingPolicy`; a configuration, loadline.yaml, is checked by `loadline config`".into(),
        )),
    }
    if meant == Some("ScalingPolicy") {
        file.documents.push(policy(&node, problems, pane));
        return;
    }
    if let Some(known) = meant {
        file.others.push(OtherDocument { kind: known.to_owned(), node });
    }
    file.problems.extend(problems);
}

/// The policy of a document, with what is wrong with it as YAML.
fn policy(node: &Node, mut problems: Vec<Problem>, pane: Duration) -> ParsedPolicy {
    let kind = node.get("spec").and_then(|spec| spec.get("target")?.get("kind")?.as_text());
    // A fleet of processes is on this machine. Of everything else nothing here says in which namespace it is.
    let default = kind.filter(|kind| *kind == "ProcessFleet").map(|_| LOCAL_NAMESPACE);
    problems.extend(envelope(node, kind, default));
    let metadata = node.get("metadata");
    let text = |name: &str| metadata.and_then(|m| m.get(name)).and_then(Node::as_text);
    let namespace_is_written = metadata.and_then(|m| written(m, "namespace")).is_some();
    let namespace = if namespace_is_written { text("namespace") } else { default };
    let mut parsed = ParsedPolicy {
        name: text("name").map(ToOwned::to_owned),
        target: None,
        namespace_is_written,
        target_span: None,
        spec_json: "null".to_owned(),
        policy: None,
        settings: Vec::new(),
        places: BTreeMap::new(),
        problems: Vec::new(),
    };
    if let Some(spec) = node.get("spec") {
        // A namespace that is missing has its own problem; the rest is checked all the same.
        let resolution = resolve_for(spec, namespace.unwrap_or("default"), pane);
        parsed.spec_json = spec.to_json();
        parsed.target = namespace.and_then(|namespace| target_of(spec, namespace));
        parsed.target_span = spec.get("target").and_then(|t| t.get("name")).and_then(|n| n.span);
        parsed.policy = resolution.policy.filter(|_| problems.iter().all(|p| p.severity != Severity::Error));
        parsed.settings = resolution.settings;
        parsed.places = resolution.places;
        problems.extend(resolution.problems);
    } else {
        problems.push(Problem {
            path: "spec".into(),
            span: node.span,
            severity: Severity::Error,
            message: "`spec` is missing".into(),
            mend: Some("write `spec` with `target`, `replicas` and `metrics`".into()),
            code: "missing-field",
        });
    }
    parsed.problems = problems;
    parsed
}

/// A field of `metadata`; one without a value is not written.
fn written<'a>(metadata: &'a Node, name: &str) -> Option<&'a Node> {
    metadata.get(name).filter(|node| node.value != Value::Null)
}

/// What surrounds the `spec` of a policy for a target of `kind`, where that can be read; a namespace that is not written is `default`.
fn envelope(node: &Node, kind: Option<&str>, default: Option<&str>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut error = |path: &str, span: Option<Span>, code, message: String, mend: &str| {
        let mend = Some(mend.to_owned());
        problems.push(Problem { path: path.to_owned(), span: span.or(node.span), severity: Severity::Error, message, mend, code });
    };
    match node.get("apiVersion") {
        Some(version) if version.as_text() == Some(API_VERSION) => {}
        Some(version) => {
            let whose = version.as_text().and_then(habit_of_document).map(|whose| format!(", that of {whose}")).unwrap_or_default();
            let message = format!("`apiVersion` is {}{whose}", version.describe());
            error("apiVersion", version.span, "api-version", message, "write `apiVersion: loadline.dev/v1alpha1`");
        }
        None => error("apiVersion", None, "missing-field", "`apiVersion` is missing".into(), "write `apiVersion: loadline.dev/v1alpha1`"),
    }
    if let Value::Map(entries) = &node.value {
        for entry in entries.iter().filter(|e| !ENVELOPE.contains(&e.key.as_str())) {
            let message = format!("unknown field `{}`", shorten(&entry.key));
            error(&shorten(&entry.key), entry.key_span, "unknown-field", message, "a document has `apiVersion`, `kind`, `metadata` and `spec`");
        }
    }
    if let Some(Value::Map(entries)) = node.get("metadata").map(|m| &m.value) {
        for entry in entries.iter().filter(|e| !METADATA.contains(&e.key.as_str())) {
            let message = format!("unknown field `{}`", shorten(&entry.key));
            let near = nearest(&entry.key, METADATA[..4].iter().copied()).map(|known| format!("did you mean `{known}`?"));
            let mend = near.unwrap_or_else(|| "metadata has `namespace`, `name`, `labels` and `annotations`".to_owned());
            error(&format!("metadata.{}", shorten(&entry.key)), entry.key_span, "unknown-field", message, &mend);
        }
    }
    for name in ["namespace", "name"] {
        let path = format!("metadata.{name}");
        let mut mend = format!("write `metadata: {{ namespace: prod, name: api-server }}` with your {name}");
        let mut missing = format!("`{path}` is missing");
        if name == "namespace" {
            let whose = kind.map(|kind| format!(": that of the {}", shorten(kind)));
            missing.push_str(&whose.unwrap_or_default());
            mend.push_str("; only a ProcessFleet has one without it, `local`");
        }
        match node.get("metadata").map(|m| (m, written(m, name))) {
            Some((_, Some(n))) if n.as_text().is_some_and(is_name) => {}
            Some((_, Some(n))) => error(&path, n.span, "name", format!("`{path}` is {}, not a name", n.describe()), &mend),
            _ if name == "namespace" && default.is_some() => {}
            Some((m, None)) => error(&path, m.span, "missing-field", missing, &mend),
            None => error(&path, None, "missing-field", missing, &mend),
        }
    }
    problems
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::resolve_spec_json;

    const POLICY: &str = "\
apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: { namespace: local, name: bots }
spec:
  target: { kind: ProcessFleet, name: bots }
  replicas: { max: 5 }
  metrics:
    - name: queue_depth
      track: { perReplica: 100 }
";

    #[test]
    fn a_file_holds_policies_and_the_documents_of_others() {
        let fleet = "apiVersion: loadline.dev/v1alpha1\nkind: ProcessFleet\nmetadata: { namespace: local, name: bots }\nspec: {}\n";
        let file = policies_in(&format!("# a comment\n---\n{POLICY}---\n{fleet}---\n"), "a.yaml");
        assert!(!file.has_errors(), "{:?}", file.all_problems());
        let [policy] = &file.documents[..] else { panic!("one policy") };
        assert_eq!(policy.target.as_ref().unwrap().as_str(), "local/ProcessFleet/bots");
        assert_eq!(policy.policy.as_ref().unwrap().max, 5);
        assert_eq!(
            policy.spec_json,
            r#"{"metrics":[{"name":"queue_depth","track":{"perReplica":100}}],"replicas":{"max":5},"target":{"kind":"ProcessFleet","name":"bots"}}"#
        );
        assert_eq!(file.others.len(), 1);
        assert_eq!(file.others[0].kind, "ProcessFleet");
    }

    #[test]
    fn what_surrounds_the_spec_is_checked_too() {
        for (from, to, code) in [
            ("ScalingPolicy", "ScalingPolicies", "unknown-kind"),
            ("kind: ScalingPolicy\n", "", "missing-field"),
            ("v1alpha1", "v1", "api-version"),
            ("metadata: { namespace: local, name: bots }\n", "", "missing-field"),
            ("namespace: local", "namespace: a/b", "name"),
            ("spec:", "specs:", "unknown-field"),
            ("metadata: {", "metadata: [", "syntax"),
        ] {
            let file = policies_in(&POLICY.replacen(from, to, 1), "a.yaml");
            let codes: Vec<_> = file.all_problems().iter().map(|p| p.code).collect();
            assert!(codes.contains(&code), "{from} -> {to}: {codes:?}");
            assert!(file.documents.iter().all(|d| d.policy.is_none()));
        }
    }

    /// One slip in the first line hides nothing of the rest, and nothing of such a document is in force.
    #[test]
    fn a_kind_that_is_nearly_right_hides_no_other_error() {
        let text = POLICY.replacen("kind: ScalingPolicy", "kind: scalingPolicy", 1).replacen("max: 5", "maxx: 5", 1);
        let file = policies_in(&text, "a.yaml");
        let codes: Vec<_> = file.all_problems().iter().map(|p| p.code).collect();
        assert_eq!(codes, ["unknown-kind", "missing-field", "unknown-field"], "{:?}", file.all_problems());
        assert!(file.documents.iter().all(|d| d.policy.is_none()));
        // What another autoscaler's document says is not read as ours.
        let file = policies_in(&POLICY.replacen("kind: ScalingPolicy", "kind: HorizontalPodAutoscaler", 1), "a.yaml");
        assert!(file.documents.is_empty() && file.all_problems().len() == 1, "{:?}", file.all_problems());
        // Nor are tests of Prometheus' rules, whose way to ours is told.
        let file = policies_in("rule_files: [a.yaml]\nevaluation_interval: 1m\ntests: []\n", "a.yaml");
        let [problem] = file.all_problems()[..] else { panic!("{:?}", file.all_problems()) };
        assert!(problem.to_string().contains("promtool") && problem.to_string().contains("kind: PolicyTest"), "{problem}");
    }

    /// Fields and values with control characters are named without them.
    #[test]
    fn what_is_said_of_a_policy_is_plain() {
        for (from, to) in [("replicas", "\"r\\eplicas\""), ("kind: ProcessFleet", "kind: \"x\\ty\""), ("queue_depth", "\"a\\nb\""), ("100", "\"1\\0m\"")] {
            let file = policies_in(&POLICY.replacen(from, to, 1), "a.yaml");
            assert!(file.has_errors(), "{from} -> {to}");
            file.all_problems().iter().for_each(|p| assert!(!p.to_string().contains(char::is_control), "{p}"));
        }
        let text = policies_in("a: \u{b}\n", "a.yaml").problems[0].to_string();
        assert!(!text.contains(char::is_control), "{text}");
    }

    /// What is checked is what is in force: no digit is lost on the way through the log.
    #[test]
    fn every_digit_goes_through_the_log() {
        let file = policies_in(&POLICY.replacen("100", "12345678901.123456789", 1), "a.yaml");
        let policy = file.documents[0].policy.as_ref().unwrap();
        assert_eq!(resolve_spec_json(&file.documents[0].spec_json, &policy.target).as_ref(), Ok(policy));
    }

    /// As in the fleet's own document: processes are `local` where nothing is written. Of everything else nobody can know it.
    #[test]
    fn a_namespace_that_is_not_written_is_that_of_processes_and_of_nothing_else() {
        for metadata in ["{ name: bots }", "{ namespace: , name: bots }", "{ namespace: ~, name: bots }", "{ namespace: local, name: bots }"] {
            let file = policies_in(&POLICY.replacen("{ namespace: local, name: bots }", metadata, 1), "a.yaml");
            assert!(file.all_problems().is_empty(), "{metadata}: {:?}", file.all_problems());
            let document = &file.documents[0];
            assert_eq!(document.policy.as_ref().unwrap().target.as_str(), "local/ProcessFleet/bots");
            assert_eq!((document.target.as_ref().unwrap().as_str(), document.namespace_is_written), ("local/ProcessFleet/bots", metadata.contains("local")));
        }
        let without = POLICY.replacen("namespace: local, ", "", 1);
        for (target, message) in [
            ("apiVersion: apps/v1, kind: Deployment", "`metadata.namespace` is missing: that of the Deployment"),
            ("apiVersion: apps/v1", "`metadata.namespace` is missing"),
        ] {
            let file = policies_in(&without.replacen("kind: ProcessFleet", target, 1), "a.yaml");
            let problem = *file.all_problems().first().unwrap();
            assert_eq!((problem.code, problem.message.as_str(), problem.path.as_str()), ("missing-field", message, "metadata.namespace"));
            assert!(problem.mend.as_ref().unwrap().contains("only a ProcessFleet"), "{problem}");
            assert!(file.documents[0].target.is_none() && file.documents[0].policy.is_none());
        }
        // What is written and is no name is never taken for what is not written.
        let file = policies_in(&POLICY.replacen("namespace: local", "namespace: 5", 1), "a.yaml");
        assert_eq!((file.all_problems()[0].code, &file.documents[0].target), ("name", &None));
    }
}
