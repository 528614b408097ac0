//! Seeds the corpora from the documents of the repository: golden traces, examples, and the reference of policies.
//!
//! It adds files and removes none.

use std::fs;
use std::path::Path;

use apache_avro::{Codec, DeflateSettings, Schema, Writer};
use loadline::log::Topic;
use loadline::model::{Message, RequestsEntry, SampleBatch, Signal, Tick, Timestamp};
use loadline::stages::arbitrate::{self, Arbitrate};
use loadline::stages::decide::{self, AuditWhen, Decide};
use loadline::stages::{Effects, Input, Located, Stage};
use loadline::wire::schemas::RecordType;
use loadline::wire::{self, jsonl};

/// What a line of signals says.
type Line = (Timestamp, Option<u32>, Signal);
/// Writes a file of a target's corpus.
type Put<'a> = dyn Fn(&str, &str, &[u8]) -> std::io::Result<()> + 'a;

const SAMPLES: &[&str] = &[
    r#"{"target":"prod/Deployment/api","metric":"cpu","instance":"api-1","time":1800000000000,"kind":"Gauge","value":0.7}"#,
    r#"{"targets":["a/b/c","a/b/d"],"metric":"latency","time":1799999999000,"kind":"Histogram","bounds":[0.1,0.5],"counts":[3,1,0],"count":4,"sum":0.5}"#,
    r#"{"target":"prod/Deployment/api","metric":"requests","instance":"api-2","kind":"Counter","value":12345}"#,
    r#"{"target":"prod/Deployment/api","metric":"latency","kind":"Distribution","value":1e-3}"#,
    r#"{"target":"prod/Deployment/api","metric":"jobs","kind":"Delta","value":-0}"#,
];
const START: &str = r#"{"prod/Deployment/shop":{"proposals":[{"replicas":5,"ageMs":120000}],"scaleEvents":[{"change":-3,"ageMs":30000}]}}"#;
const AMOUNTS: &[&str] = &[
    "100",
    "0.5",
    "250m",
    "2Gi",
    "300ms",
    "1%",
    "1h30m",
    "5m",
    "1.5s",
    "+3k",
    "-1",
    "1e3",
    "2.5E-3",
    "0.000000001",
    "1000000000000000000",
    "0.1Ei",
    "12n",
    "99.999999999%",
    "1h1m1s1ms",
    ".5",
    "5.",
    "1e",
    "Ki",
    "",
];

/// Writes them.
pub(crate) fn seed() -> std::io::Result<()> {
    let root = &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };
    let mut kinds = std::collections::BTreeSet::new();
    for path in files(&root.join("../tests/golden"), "jsonl")? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let signals: Vec<(&str, Line)> = text.lines().filter_map(|l| Some((l, jsonl::line_to_signal(l).ok()?))).collect();
        let first: Vec<&str> = signals
            .iter()
            .map(|(line, _)| *line)
            .scan(0, |bytes, line| {
                *bytes += line.len() + 1;
                (*bytes <= 3_500).then_some(line)
            })
            .collect();
        put("replay", &name, first.join("\n").as_bytes())?;
        for (line, (_, _, signal)) in &signals {
            let kind = format!("{signal:?}").split('(').next().unwrap_or_default().to_owned();
            if kinds.insert(kind.clone()) {
                put("lines", &kind.to_lowercase(), line.as_bytes())?;
            }
        }
        for (kind, bytes) in messages(signals.into_iter().map(|(_, signal)| signal)) {
            put("avro", &kind, &bytes)?;
        }
    }
    put("replay", "start", format!("@{START}\n{}", fs::read_to_string(root.join("corpus/replay/at-rest"))?).as_bytes())?;
    put("lines", "start", START.as_bytes())?;
    put("lines", "samples", SAMPLES.join("\n").as_bytes())?;
    for (index, amount) in AMOUNTS.iter().enumerate() {
        for unit in 0..6 {
            put("amounts", &format!("{index}-{unit}"), format!("{}{amount}", char::from(b'0' + unit)).as_bytes())?;
        }
    }
    for path in files(&root.join("../examples/storefront"), "yaml")? {
        put("policy", &path.file_name().unwrap_or_default().to_string_lossy(), &fs::read(&path)?)?;
    }
    for page in ["policy", "process-fleet"] {
        let text = fs::read_to_string(root.join(format!("../docs/{page}.md")))?;
        for (index, block) in text.split("```yaml\n").skip(1).enumerate() {
            put("policy", &format!("{page}-{index}"), block.split("```").next().unwrap_or_default().as_bytes())?;
        }
    }
    containers(&put)?;
    let body = SAMPLES.join("\n");
    put("http", "ndjson", format!("application/x-ndjson\n{body}").as_bytes())?;
    put("http", "json", format!("application/json; charset=utf-8\n{}", SAMPLES[0]).as_bytes())?;
    put("http", "other", b"text/html\n<p>")?;
    let request = fs::read(root.join("../src/wire/otlp/request.bin"))?;
    put("http", "otlp", &[b"application/x-protobuf\n".as_slice(), &request].concat())?;
    put(
        "http",
        "scale",
        br#"scale
{"replicas":5,"actor":"ana@example.com","reason":"launch"}"#,
    )
}

fn files(folder: &Path, extension: &str) -> std::io::Result<Vec<std::path::PathBuf>> {
    let paths: Result<Vec<_>, _> = fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect();
    let mut paths = paths?;
    paths.retain(|p| p.extension().is_some_and(|e| e == extension));
    paths.sort();
    Ok(paths)
}

/// A message of each kind that the pipeline makes of these signals, with its bytes.
fn messages(signals: impl Iterator<Item = Line>) -> Vec<(String, Vec<u8>)> {
    let (decide, arbiter) = (Decide { audit: AuditWhen::Always, probe: None }, Arbitrate::default());
    let (mut state, mut claims) = (decide::State::default(), arbitrate::State::default());
    let mut made = Vec::new();
    for (offset, (at, _, record)) in (0..).zip(signals) {
        let mut effects = Effects::new();
        made.push(Message::Signal(record.clone()));
        decide.apply(&mut state, Input::Record(Located { partition: 0, offset, at, record }), &mut effects);
        for effect in effects.take() {
            if let Message::Request(claim) = &effect.message {
                let mut answers = Effects::new();
                for record in [RequestsEntry::Claim(claim.clone()), RequestsEntry::Tick(Tick {})] {
                    arbiter.apply(&mut claims, Input::Record(Located { partition: 0, offset, at, record }), &mut answers);
                }
                made.extend(answers.take().into_iter().map(|e| e.message));
            }
            made.push(effect.message);
        }
    }
    made.push(Message::Samples(SampleBatch { samples: samples(), ..SampleBatch::default() }));
    made.push(Message::DeadLetter(loadline::model::DeadLetter {
        topic: Topic::Metrics.to_string(),
        partition: 0,
        offset: 7,
        reason: "bad".into(),
        record: vec![1],
    }));
    let mut of_kind = std::collections::BTreeMap::new();
    for message in made {
        let name: String = format!("{message:?}").chars().filter(|c| c.is_alphanumeric() || *c == '(').take(24).collect();
        of_kind.insert(name.replace('(', "-").to_lowercase(), wire::encode(&message));
    }
    of_kind.into_iter().collect()
}

fn samples() -> Vec<loadline::model::Sample> {
    SAMPLES.iter().filter_map(|line| jsonl::sample_from_line(line, Timestamp::from_millis(1_800_000_000_000)).ok()).collect()
}

fn containers(put: &Put<'_>) -> std::io::Result<()> {
    let schema = Schema::parse_str(RecordType::SampleBatch.schema_json()).expect("this release's schema");
    let batch = SampleBatch { samples: samples(), ..SampleBatch::default() };
    for (first, name, codec) in [(2, "plain", Codec::Null), (3, "deflated", Codec::Deflate(DeflateSettings::default()))] {
        let mut writer = Writer::builder().schema(&schema).codec(codec).writer(Vec::new()).build().expect("a writer");
        let header = Writer::builder().schema(&schema).codec(codec).writer(Vec::new()).build().and_then(Writer::into_inner).expect("a header").len();
        writer.append_ser(&batch).expect("a batch");
        let file = writer.into_inner().expect("a file");
        // The one block without its count (a byte), its length (two bytes) and the sync marker.
        let block = &file[header + 3..file.len() - 16];
        put("container", name, &file)?;
        put("container", &format!("{name}-block"), &[&[first], block].concat())?;
        put("http", &format!("avro-{name}"), &[b"application/avro\n", file.as_slice()].concat())?;
    }
    let sample =
        r#"{"type":"record","name":"Sample","fields":[{"name":"metric","type":"string"},{"name":"targets","type":{"type":"array","items":"string"}}]}"#;
    let file = Writer::new(&Schema::parse_str(sample).expect("a schema"), Vec::new()).and_then(Writer::into_inner).expect("a file");
    put("container", "empty", &file)
}
