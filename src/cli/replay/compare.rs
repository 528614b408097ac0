//! `loadline replay --policy`: one history under two policies.
//!
//! Both are replayed in the same way: as advice, each against a count of its own that follows its decisions at once.
//! What was measured and which instances were ready is as it was recorded. So two equal policies never differ, and what differs
//! is the policies' doing; but a metric does not answer to a count that was never there: of a policy that would have kept more
//! replicas the latency is shown as it was with fewer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::ReplayArgs;
use super::difference::{All, Compared, Side, Span, Sums};
use crate::cli::documents::documents_in;
use crate::cli::export::{self, each_signal, since};
use crate::cli::only::Only;
use crate::cli::policy::{self, render};
use crate::cli::{Unusable, table};
use crate::model::document::amounts::show_duration;
use crate::model::document::{Entry, Node, Severity, Value as Tree};
use crate::model::policy::nearest_metric;
use crate::model::{MetricName, Order, PolicyAnnouncement, Signal, TargetId, Timestamp};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::replay::{Caused, Replay};
use crate::wire::jsonl;

/// So many differences are shown of a target; all are in JSON.
const SHOWN: usize = 40;
/// The exit code where the difference is above the limit.
const ABOVE: u8 = 3;

/// How a comparison is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
    /// For a pull request
    Markdown,
}

/// A difference that is too large.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Limit {
    /// More than so many replicas at any time.
    Replicas(u32),
    /// More than such a share of the recorded replica-hours.
    Share(f64),
}

impl Limit {
    pub(super) fn parse(text: &str) -> Result<Limit, String> {
        let bad = || format!("{text:?} is no difference; write replicas, as in `3`, or a share of the replica-hours, as in `10%`");
        match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().ok().filter(|p| p.is_finite() && *p >= 0.0).map(|p| Limit::Share(p / 100.0)).ok_or_else(bad),
            None => text.parse().map(Limit::Replicas).map_err(|_| bad()),
        }
    }

    fn is_exceeded_by(self, compared: &Compared) -> bool {
        match self {
            Limit::Replicas(most) => compared.largest() > most,
            Limit::Share(most) => compared.share() > most,
        }
    }
}

/// What is replayed: all of it, so that policies and counts are known by `from`; what was appended then or later is compared.
struct History {
    source: Source,
    from: Option<Timestamp>,
}

/// Where the history is.
enum Source {
    File(PathBuf),
    Lines(Vec<String>),
    Log(export::Source),
}

/// Runs it.
///
/// # Errors
/// Policies with errors, a history that cannot be read, or that has nothing of a policy's target.
pub(super) fn run(args: &ReplayArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let candidates = candidates(&args.policy)?;
    let from = args.from.as_deref().map(|text| since(text, SystemClock.now())).transpose()?;
    #[cfg(feature = "kafka")]
    let on_kafka = args.installation.options()?.map(export::Source::on_kafka);
    #[cfg(not(feature = "kafka"))]
    let on_kafka = None;
    let source = match (on_kafka, &args.data, &args.file) {
        (Some(on_kafka), ..) => Source::Log(on_kafka),
        (None, Some(data), _) => Source::Log(export::Source::Directory(data.clone())),
        (None, None, Some(file)) if file.as_os_str() != "-" => Source::File(file.clone()),
        _ => Source::Lines(std::io::stdin().lock().lines().collect::<Result<_, _>>().context("failed to read the standard input")?),
    };
    let history = History { source, from };
    let mut only = Only::new(args.target.as_deref());
    let candidates: Vec<Candidate> = candidates.into_iter().filter(|candidate| only.admits(&candidate.target)).collect();
    only.check()?;
    // What the history has of the targets: where it names no policy, the other one begins with the target's first signal.
    let (mut seen, mut named) = (BTreeSet::new(), BTreeSet::new());
    let mut sampled: BTreeMap<TargetId, BTreeSet<MetricName>> = BTreeMap::new();
    history.each(&mut |at, _, signal| {
        let Some(target) = signal.target() else { return Ok(()) };
        if matches!(signal, Signal::Policy(_)) {
            named.insert(target.clone());
        }
        if from.is_none_or(|from| at >= from) {
            seen.insert(target.clone());
            if let Signal::Part(part) = &signal {
                sampled.entry(target.clone()).or_default().extend(part.panes.iter().map(|pane| pane.metric.clone()));
            }
        }
        Ok(())
    })?;
    for candidate in &candidates {
        if !seen.contains(&candidate.target) {
            let known: Vec<&str> = seen.iter().take(10).map(TargetId::as_str).collect();
            let known = if known.is_empty() { "it has no target at all".to_owned() } else { format!("it has {}", known.join(", ")) };
            let since = history.from.map(|from| format!(" since {from}")).unwrap_or_default();
            bail!("the history has no signal of {}{since}; {known}", candidate.target);
        }
    }
    for candidate in &candidates {
        for note in unsampled(candidate, sampled.get(&candidate.target)) {
            crate::cli::tell(&format!("loadline: {note}"));
        }
    }
    let all = compare(&history, &candidates, &named)?;
    match args.output {
        Format::Text => text(&all, args, out)?,
        Format::Json => writeln!(out, "{}", as_json(&all))?,
        Format::Markdown => markdown(&all, args, out)?,
    }
    if let (Some(_), Some((target, _))) = (args.fail_above, all.iter().find(|(_, compared)| compared.compared().is_zero())) {
        bail!("--fail-above: nothing of {target} was compared, so nothing is known of its difference");
    }
    let above = args.fail_above.is_some_and(|limit| all.values().any(|compared| limit.is_exceeded_by(compared)));
    Ok(if above { ABOVE } else { 0 })
}

/// A policy in the place of the recorded one.
struct Candidate {
    target: TargetId,
    spec: String,
    metrics: Vec<String>,
}

/// Which metrics of a policy the history has no sample of: whatever differs then is not the policy's doing.
fn unsampled(candidate: &Candidate, sampled: Option<&BTreeSet<MetricName>>) -> Vec<String> {
    let had: Vec<&str> = sampled.into_iter().flatten().map(MetricName::as_str).collect();
    let missing = candidate.metrics.iter().filter(|metric| !had.contains(&metric.as_str()));
    let told = missing.map(|metric| {
        let mend = match nearest_metric(metric, had.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if had.is_empty() => "it has no sample of any".to_owned(),
            None => format!("it has {}", had.join(", ")),
        };
        format!("{}: the history has no sample of `{metric}`, which the policy uses; {mend}", candidate.target)
    });
    told.collect()
}

fn candidates(files: &[PathBuf]) -> anyhow::Result<Vec<Candidate>> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for path in files {
        let policy::Source { name, text } = policy::read(path);
        let text = text.map_err(|why| Unusable(format!("failed to read {name}: {why}")))?;
        let file = documents_in(&text, &name);
        let errors: Vec<_> = file.all_problems().into_iter().filter(|p| p.severity == Severity::Error).collect();
        if !errors.is_empty() {
            let mut told = String::new();
            render::problems(&mut told, &name, &text, &errors, false);
            bail!("{name} has errors:\n\n{}", told.trim_end());
        }
        for document in file.documents {
            let Some(target) = document.target else { continue };
            if candidates.iter().any(|c| c.target == target) {
                bail!("{name}: {target} has two policies to compare with; name one");
            }
            let metrics = document.policy.iter().flat_map(|policy| &policy.metrics).map(|metric| metric.name.to_string()).collect();
            candidates.push(Candidate { target, spec: document.spec_json, metrics });
        }
    }
    if candidates.is_empty() {
        bail!("there is no ScalingPolicy in {}", files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", "));
    }
    Ok(candidates)
}

impl History {
    /// Hands over every signal, in order.
    fn each(&self, each: &mut dyn FnMut(Timestamp, u32, Signal) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut line = |number: u64, line: &str| -> anyhow::Result<()> {
            if line.trim().is_empty() {
                return Ok(());
            }
            match jsonl::line_to_signal(line) {
                Ok((at, partition, signal)) => each(at, partition.unwrap_or(0), signal),
                Err(error) => bail!("line {number} cannot be used: {error}"),
            }
        };
        match &self.source {
            Source::Log(source) => each_signal(source, None, each),
            Source::Lines(lines) => (1..).zip(lines).try_for_each(|(number, text)| line(number, text.as_str())),
            Source::File(path) => {
                let file = File::open(path).map_err(|error| Unusable(format!("failed to open {}: {error}", path.display())))?;
                for (number, text) in (1..).zip(BufReader::new(file).lines()) {
                    line(number, &text.with_context(|| format!("failed to read line {number} of {}", path.display()))?)?;
                }
                Ok(())
            }
        }
    }
}

/// Replays the history twice at once.
fn compare(history: &History, candidates: &[Candidate], named: &BTreeSet<TargetId>) -> anyhow::Result<All> {
    let (mut before, mut after) = (Replay::open(), Replay::open());
    let mut all: All = candidates.iter().map(|c| (c.target.clone(), Compared::since(history.from))).collect();
    let mut begun: BTreeSet<TargetId> = BTreeSet::new();
    history.each(&mut |at, partition, signal| {
        let candidate = signal.target().and_then(|target| candidates.iter().find(|c| c.target == *target));
        if signal.target().is_some() && candidate.is_none() {
            return Ok(()); // of a target that nobody asks for
        }
        // A target's time is that of its own partition.
        match candidate.and_then(|candidate| all.get_mut(&candidate.target)) {
            Some(compared) => {
                compared.partition = Some(partition);
                compared.advance(at);
            }
            None => all.values_mut().filter(|compared| compared.partition == Some(partition)).for_each(|compared| compared.advance(at)),
        }
        if let Some(candidate) = candidate
            && !named.contains(&candidate.target)
            && begun.insert(candidate.target.clone())
        {
            let order = Order { source: "compared".to_owned(), generation: 1 };
            let announced = PolicyAnnouncement { target: candidate.target.clone(), spec: Some(as_advice(&candidate.spec)), order };
            take(&mut all, Side::After, after.signal(at, partition, Signal::Policy(announced)))?;
        }
        let (theirs, ours) = match (signal, candidate) {
            (Signal::Policy(announced), Some(candidate)) => {
                let with = |spec: Option<&str>| Signal::Policy(PolicyAnnouncement { spec: spec.map(as_advice), ..announced.clone() });
                (with(announced.spec.as_deref()), with(announced.spec.as_ref().map(|_| candidate.spec.as_str())))
            }
            (other, _) => (other.clone(), other),
        };
        take(&mut all, Side::Before, before.signal(at, partition, theirs))?;
        take(&mut all, Side::After, after.signal(at, partition, ours))
    })?;
    Ok(all)
}

fn take(all: &mut All, side: Side, caused: Vec<Caused>) -> anyhow::Result<()> {
    for caused in caused {
        match caused {
            Caused::Decision(decision) => {
                if let Some(compared) = all.get_mut(&decision.target) {
                    compared.decided(side, &decision);
                }
            }
            Caused::Trouble(alert) => {
                let of = alert.target.as_ref().map(ToString::to_string).unwrap_or_default();
                bail!("{of}: {} ({})", alert.message, alert.name);
            }
            Caused::Request(_) | Caused::Grant(_) | Caused::Command(_) => {}
        }
    }
    Ok(())
}

/// The same policy as advice. One that only grows shrinks not as advice either.
fn as_advice(spec: &str) -> String {
    let Ok(mut node) = Node::from_json(spec) else { return spec.to_owned() };
    let mode = node.get("mode").and_then(Node::as_text).unwrap_or("Active").to_owned();
    match mode.as_str() {
        "Active" => set(&mut node, &["mode"], "Advise"),
        "OutOnly" => {
            set(&mut node, &["mode"], "Advise");
            set(&mut node, &["behavior", "scaleIn", "select"], "Disabled");
        }
        _ => {}
    }
    node.to_json()
}

/// Sets the field at a path of a map to a word.
fn set(node: &mut Node, path: &[&str], word: &str) {
    let [name, rest @ ..] = path else {
        node.value = Tree::Text(word.to_owned());
        return;
    };
    if !matches!(node.value, Tree::Map(_)) {
        node.value = Tree::Map(Vec::new());
    }
    if let Tree::Map(entries) = &mut node.value {
        let at = entries.iter().position(|e| e.key == *name).unwrap_or_else(|| {
            entries.push(Entry { key: (*name).to_owned(), key_span: None, value: Node::bare(Tree::Null) });
            entries.len() - 1
        });
        set(&mut entries[at].value, rest, word);
    }
}

/// The name of the other side.
fn other(args: &ReplayArgs) -> String {
    args.policy.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The sums side by side: what, as recorded, with the other.
fn summary(compared: &Compared) -> Vec<[String; 4]> {
    let hours = |sums: &Sums| sums.replica_ms as f64 / 3_600_000.0;
    let (a, b) = (&compared.sums.0, &compared.sums.1);
    let change = if hours(a) > 0.0 { format!("{:+.1} %", (hours(b) / hours(a) - 1.0) * 100.0) } else { String::new() };
    let whole = |n: u32, m: u32| if n == m { String::new() } else { format!("{:+}", i64::from(m) - i64::from(n)) };
    vec![
        ["replica-hours".to_owned(), format!("{:.2}", hours(a)), format!("{:.2}", hours(b)), change],
        ["most replicas".to_owned(), a.most.to_string(), b.most.to_string(), whole(a.most, b.most)],
        ["times out".to_owned(), a.out.to_string(), b.out.to_string(), whole(a.out, b.out)],
        ["times in".to_owned(), a.r#in.to_string(), b.r#in.to_string(), whole(a.r#in, b.r#in)],
    ]
}

/// How much differs, in a sentence.
fn verdict(compared: &Compared) -> String {
    let total = compared.compared();
    if total.is_zero() {
        return "nothing to compare: there was no time at which both policies had a count. The history may begin after the recorded policy was announced, \
                which is done again once a day only: export more of it, or compare with --data"
            .to_owned();
    }
    let whole = |time: Duration| show_duration(Duration::from_secs(time.as_secs()));
    if compared.spans.is_empty() {
        return format!("no difference in {}", whole(total));
    }
    let share = compared.differed().as_secs_f64() / total.as_secs_f64() * 100.0;
    format!(
        "differs for {} of {} ({share:.1} %), by at most {} replicas; the difference is {:.1} % of the recorded replica-hours",
        show_duration(compared.differed()),
        whole(total),
        compared.largest(),
        compared.share() * 100.0
    )
}

fn row(span: &Span) -> [String; 6] {
    let why = |said: &super::difference::Said| said.reason.map_or_else(|| format!("{:?}", said.binding), |reason| format!("{:?}: {reason:?}", said.binding));
    [
        short(span.from),
        show_duration(span.until.since(span.from)),
        span.before.desired.to_string(),
        format!("{} ({:+})", span.after.desired, i64::from(span.after.desired) - i64::from(span.before.desired)),
        why(&span.before),
        why(&span.after),
    ]
}

/// A moment without what nobody needs of it: `2026-03-01 12:03:20`.
fn short(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('.').map_or(text.clone(), |(text, _)| text.replace('T', " "))
}

fn more(compared: &Compared) -> Option<String> {
    let hidden = compared.spans.len().saturating_sub(SHOWN);
    (hidden > 0).then(|| format!("{hidden} more differences; --output json has all"))
}

fn text(all: &All, args: &ReplayArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    for (i, (target, compared)) in all.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{target}: {}", verdict(compared))?;
        if compared.compared().is_zero() {
            continue;
        }
        writeln!(out)?;
        table::write(out, &["", "RECORDED", &other(args), ""], summary(compared).into_iter().map(|row| row.to_vec()))?;
        if !compared.spans.is_empty() {
            writeln!(out)?;
            let header = ["FROM (UTC)", "FOR", "RECORDED", "NOW", "WHAT BOUND THEN", "WHAT BINDS NOW"];
            table::write(out, &header, compared.spans.iter().take(SHOWN).map(|span| row(span).to_vec()))?;
        }
        if let Some(more) = more(compared) {
            writeln!(out, "{more}")?;
        }
    }
    Ok(())
}

fn markdown(all: &All, args: &ReplayArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let cells = |row: &[String]| row.iter().map(|cell| render::markdown(cell)).collect::<Vec<_>>().join(" | ");
    for (target, compared) in all {
        writeln!(out, "### {}\n\n{}.\n", render::markdown(target.as_str()), render::markdown(&verdict(compared)))?;
        if compared.compared().is_zero() {
            continue;
        }
        writeln!(out, "| | recorded | {} | |\n|---|---:|---:|---:|", render::markdown(&other(args)))?;
        for row in summary(compared) {
            writeln!(out, "| {} |", cells(&row))?;
        }
        if !compared.spans.is_empty() {
            writeln!(out, "\n| from (UTC) | for | recorded | now | what bound then | what binds now |\n|---|---:|---:|---:|---|---|")?;
            for span in compared.spans.iter().take(SHOWN) {
                writeln!(out, "| {} |", cells(&row(span)))?;
            }
        }
        if let Some(more) = more(compared) {
            writeln!(out, "\n{}", render::markdown(&more))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn as_json(all: &All) -> Value {
    let sums =
        |s: &Sums| json!({ "replicaHours": s.replica_ms as f64 / 3_600_000.0, "most": s.most, "out": s.out, "in": s.r#in, "evaluations": s.evaluations });
    let said = |s: &super::difference::Said| json!({ "desired": s.desired, "binding": format!("{:?}", s.binding), "sentence": s.sentence });
    let targets: Vec<Value> = all
        .iter()
        .map(|(target, c)| {
            let spans: Vec<Value> = c
                .spans
                .iter()
                .map(|span| json!({ "from": span.from, "until": span.until, "recorded": said(&span.before), "now": said(&span.after) }))
                .collect();
            json!({
                "target": target, "from": c.from, "until": c.until, "recorded": sums(&c.sums.0), "now": sums(&c.sums.1),
                "differedMs": u64::try_from(c.differed().as_millis()).unwrap_or(u64::MAX), "largest": c.largest(), "share": c.share(), "differences": spans,
            })
        })
        .collect();
    json!({ "targets": targets })
}

#[cfg(test)]
mod tests;
