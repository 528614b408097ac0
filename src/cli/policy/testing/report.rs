//! What came of tests: for people, with a table of what happened around a failure; and as XML of `JUnit`.

use std::fmt::Write as _;
use std::time::Duration;

use quick_xml::Writer;
use quick_xml::events::BytesText;

use super::super::render;
use super::world::Look;
use super::{Failure, Ran, Tested};
use crate::cli::counted;
use crate::cli::table;
use crate::model::document::amounts::show_duration;
use crate::model::{Decision, MetricName, Step};
use crate::wire::words;

/// So many moments are shown up to the first failure, …
const BEFORE: usize = 10;
/// … and so many after it.
const AFTER: usize = 2;

/// The step that bound: the last of its kind that changed the count, or the last of its kind.
pub(super) fn binding_step(decision: &Decision) -> Option<&Step> {
    let of_kind = || decision.steps.iter().rev().filter(|s| s.step == decision.binding);
    of_kind().find(|s| s.before != s.after).or_else(|| of_kind().next())
}

/// For people. What is written to a String cannot fail.
pub(super) fn text(ran: &[Ran], colours: bool) -> String {
    let mut out = String::new();
    let (mut passed, mut failed, mut errors) = (0, 0, 0);
    for ran in ran {
        let text = match &ran.source.text {
            Ok(text) => text,
            Err(why) => {
                render::unreadable(&mut out, &ran.source.name, why, colours);
                errors += 1;
                continue;
            }
        };
        errors += ran.problems.len();
        for (source, file) in &ran.others {
            if let Ok(text) = &source.text {
                render::problems(&mut out, &source.name, text, &file.all_problems(), colours);
            }
        }
        render::problems(&mut out, &ran.source.name, text, &ran.problems.iter().collect::<Vec<_>>(), colours);
        if !ran.tests.is_empty() {
            let _ = writeln!(out, "{}", ran.source.name);
        }
        for test in &ran.tests {
            if test.is_failed() {
                failed += 1;
                let _ = writeln!(out, "  {}  {}", render::red("FAIL", colours), test.case.name);
                out.push_str(&indented(&story(test, &ran.source.name), "        "));
                out.push('\n');
            } else {
                passed += 1;
                let _ = writeln!(out, "  {}    {}", render::green("ok", colours), test.case.name);
            }
        }
    }
    let errors = if errors > 0 { format!(", {}", counted(errors, "error", "errors")) } else { String::new() };
    let _ = writeln!(out, "{}: {passed} passed, {failed} failed{errors}", counted(passed + failed, "test", "tests"));
    out
}

/// Why a test failed: each expectation, what happened around it, and the decision.
fn story(test: &Tested, file: &str) -> String {
    let mut out = String::new();
    for trouble in &test.played.troubles {
        let _ = writeln!(out, "{trouble}");
    }
    for failure in &test.failures {
        let place = failure.span.map_or_else(|| file.to_owned(), |s| format!("{file}:{}:{}", s.line, s.column));
        let _ = writeln!(out, "{place}: at {}, {}", show_duration(failure.at), sentence(failure));
    }
    let Some(first) = test.failures.first() else { return out };
    out.push('\n');
    out.push_str(&timeline(test, first.at));
    let look = test.played.looks.iter().find(|look| look.at == first.at);
    if let Some((made, decision)) = look.and_then(|look| look.decision.as_ref()) {
        let when = if *made == first.at { String::new() } else { format!(", which was made at {}", show_duration(*made)) };
        let _ = writeln!(out, "\nThe decision at {}{when}: {}", show_duration(first.at), words::sentence(decision));
        let rows = decision.steps.iter().map(|step| {
            let bound = if step.step == decision.binding { " *" } else { "" };
            let change = if step.before == step.after { step.after.to_string() } else { format!("{} → {}", step.before, step.after) };
            vec![format!("{:?}{bound}", step.step), change, format!("{:?}", step.reason), words::why(decision, step)]
        });
        out.push_str(&table_of(&["STEP", "REPLICAS", "REASON", "WHY"], rows));
        let metrics: Vec<Vec<String>> = decision
            .metrics
            .iter()
            .map(|m| {
                let value = m.value.map_or_else(|| "–".to_owned(), |value| words::figure(value, m));
                let against = words::against(m).unwrap_or_else(|| "–".to_owned());
                let asks = m.proposal.map_or_else(|| "–".to_owned(), |n| n.to_string());
                vec![m.name.to_string(), format!("{:?}", m.status), value, against, asks, words::remarks(m, decision.at).unwrap_or_default()]
            })
            .collect();
        if !metrics.is_empty() {
            out.push('\n');
            out.push_str(&table_of(&["METRIC", "STATUS", "VALUE", "AGAINST", "ASKS FOR", ""], metrics));
        }
    }
    for track in &test.plan.series {
        let last = test.plan.every.saturating_mul(u32::try_from(track.points.len().saturating_sub(1)).unwrap_or(u32::MAX));
        if last + test.plan.every < first.at {
            let _ = writeln!(out, "\nNote: the last value of {} is that of {}.", track.metric, show_duration(last));
        }
    }
    out
}

fn sentence(failure: &Failure) -> String {
    format!("{}: expected {}, was {}", failure.field, failure.expected, failure.actual)
}

/// What happened up to a moment and just after it: moments at which anything changed, and those at which somebody looked.
fn timeline(test: &Tested, failed: Duration) -> String {
    let looks = &test.played.looks;
    let state = |look: &Look| (look.replicas, look.ready, look.decision.as_ref().map(|(_, d)| (d.desired, d.binding, d.verdict)));
    let mut shown: Vec<&Look> = Vec::new();
    for (i, look) in looks.iter().enumerate() {
        let changed = i == 0 || state(look) != state(&looks[i - 1]);
        if changed || test.plan.looks.contains(&look.at) {
            shown.push(look);
        }
    }
    let at = shown.iter().position(|look| look.at == failed).unwrap_or(0);
    let from = at.saturating_sub(BEFORE);
    let until = shown.len().min(at + 1 + AFTER);
    let proposing: Vec<_> = test.policy.metrics.iter().filter(|m| m.proposes()).map(|m| m.name.clone()).collect();
    let mut header = vec!["TIME", "REPLICAS", "READY"];
    header.extend(proposing.iter().map(MetricName::as_str));
    header.extend(["DESIRED", "BINDING", "VERDICT", "EXPECTED"]);
    let row = |look: &&Look| {
        let decision = look.decision.as_ref().map(|(_, decision)| decision);
        let mut row = vec![show_duration(look.at), look.replicas.to_string(), look.ready.to_string()];
        row.extend(proposing.iter().map(|name| {
            let part = decision.and_then(|d| d.metrics.iter().find(|m| m.name == *name));
            part.map_or_else(|| "–".to_owned(), |m| m.value.map_or_else(|| format!("{:?}", m.status), |value| words::amount(value, m.unit)))
        }));
        row.extend(match decision {
            Some(d) => [d.desired.to_string(), format!("{:?}", d.binding), format!("{:?}", d.verdict)],
            None => ["–".to_owned(), "–".to_owned(), "–".to_owned()],
        });
        let missed = test.failures.iter().filter(|f| f.at == look.at).map(|f| format!("{} {}", f.field, f.expected)).collect::<Vec<_>>();
        let expected = test.case.expect.iter().any(|e| e.at == look.at);
        row.push(match (missed.is_empty(), expected) {
            (false, _) => format!("← {}", missed.join(", ")),
            (true, true) => "as it is".to_owned(),
            (true, false) => String::new(),
        });
        row
    };
    table_of(&header, shown[from..until].iter().map(row))
}

fn table_of(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail.
    let _ = table::write(&mut bytes, header, rows);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn indented(text: &str, by: &str) -> String {
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{by}{line}\n") };
    text.lines().map(line).collect()
}

/// XML of `JUnit`, as build servers read it: a suite a file, a case a test.
pub(super) fn junit(ran: &[Ran]) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    let all = |count: fn(&Ran) -> usize| ran.iter().map(count).sum::<usize>().to_string();
    let suites = writer.create_element("testsuites").with_attributes([
        ("name", "loadline policy test"),
        ("tests", all(tests).as_str()),
        ("failures", all(failures).as_str()),
        ("errors", all(errors).as_str()),
    ]);
    // Writing to memory cannot fail.
    let _ = suites.write_inner_content(|writer| {
        for ran in ran {
            let name = legal(&ran.source.name);
            let suite = writer.create_element("testsuite").with_attributes([
                ("name", name.as_str()),
                ("tests", tests(ran).to_string().as_str()),
                ("failures", failures(ran).to_string().as_str()),
                ("errors", errors(ran).to_string().as_str()),
            ]);
            suite.write_inner_content(|writer| {
                for (place, message) in wrong(ran) {
                    let case = writer.create_element("testcase").with_attributes([("name", "the file can be read"), ("classname", name.as_str())]);
                    case.write_inner_content(|writer| {
                        let error = writer.create_element("error").with_attributes([("type", "document"), ("message", legal(&message).as_str())]);
                        error.write_text_content(BytesText::new(&legal(&format!("{place}: {message}")))).map(drop)
                    })?;
                }
                for test in &ran.tests {
                    let case = writer.create_element("testcase").with_attributes([
                        ("name", legal(&test.case.name).as_str()),
                        ("classname", legal(test.plan.target.as_str()).as_str()),
                        ("file", name.as_str()),
                        ("line", test.case.span.map_or(1, |s| s.line).to_string().as_str()),
                    ]);
                    if !test.is_failed() {
                        case.write_empty()?;
                        continue;
                    }
                    let first = test.failures.first().map(|f| format!("at {}, {}", show_duration(f.at), sentence(f)));
                    let message = first.or_else(|| test.played.troubles.first().cloned()).unwrap_or_default();
                    case.write_inner_content(|writer| {
                        let failure = writer.create_element("failure").with_attributes([("type", "expectation"), ("message", legal(&message).as_str())]);
                        failure.write_text_content(BytesText::new(&legal(&story(test, &ran.source.name)))).map(drop)
                    })?;
                }
                Ok(())
            })?;
        }
        Ok(())
    });
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", String::from_utf8_lossy(&writer.into_inner()))
}

fn tests(ran: &Ran) -> usize {
    ran.tests.len() + wrong(ran).len()
}

fn failures(ran: &Ran) -> usize {
    ran.tests.iter().filter(|t| t.is_failed()).count()
}

fn errors(ran: &Ran) -> usize {
    wrong(ran).len()
}

/// What is wrong with a file, each with its place.
fn wrong(ran: &Ran) -> Vec<(String, String)> {
    let name = &ran.source.name;
    if let Err(why) = &ran.source.text {
        return vec![(name.clone(), format!("failed to read {name}: {why}"))];
    }
    let place = |span: Option<crate::model::document::Span>| span.map_or_else(|| name.clone(), |s| format!("{name}:{}:{}", s.line, s.column));
    let say = |p: &crate::model::document::Problem| p.mend.as_ref().map_or_else(|| p.message.clone(), |mend| format!("{}; {mend}", p.message));
    ran.problems.iter().map(|p| (place(p.span), say(p))).collect()
}

/// The same without what XML 1.0 cannot hold.
fn legal(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
