use super::*;
use crate::model::Kind;
use crate::wire::otlp::tests::field;
use crate::wire::{self, WireError};

const LINE: &str = r#"{"target":"prod/Deployment/api","metric":"cpu","value":0.7}"#;
const AT: Timestamp = Timestamp::from_millis(1_764_000_001_000);
const OTLP: &[u8] = include_bytes!("../otlp/request.bin");

fn record(content_type: Option<&str>, value: impl Into<Vec<u8>>) -> RawRecord {
    RawRecord { partition: 0, offset: 0, at: AT, key: None, content_type: content_type.map(str::to_owned), value: value.into() }
}

fn read(content_type: Option<&str>, value: impl Into<Vec<u8>>) -> Result<(SampleBatch, Option<String>), String> {
    let read = wire::read(Topic::Metrics, &record(content_type, value)).map_err(|error| error.to_string())?;
    let Message::Samples(batch) = read.message else { panic!("samples") };
    Ok((batch, read.lacks))
}

fn own() -> Vec<u8> {
    let sample = jsonl::sample_from_line(LINE, AT).unwrap();
    wire::encode(&Message::Samples(SampleBatch { producer: Some("p".to_owned()), sequence: Some(7), samples: vec![sample], ..SampleBatch::default() }))
}

fn container(batch: &SampleBatch) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(wire::schemas::RecordType::SampleBatch.schema_json()).unwrap();
    let mut writer = apache_avro::Writer::new(&schema, Vec::new()).unwrap();
    writer.append_ser(batch).unwrap();
    writer.into_inner().unwrap()
}

/// What it is, its bytes, the types that it may be said to be of, and how many samples it holds.
type Case = (&'static str, Vec<u8>, &'static [Option<&'static str>], usize);

/// The first bytes tell it where nothing else does; a header that is there is believed.
#[test]
fn a_record_of_any_producer_is_read_by_its_header_or_by_how_it_begins() {
    let file = container(&SampleBatch { samples: vec![jsonl::sample_from_line(LINE, AT).unwrap()], ..SampleBatch::default() });
    let cases: [Case; 4] = [
        ("JSON", LINE.into(), &[None, Some("application/json"), Some("application/x-ndjson; charset=utf-8"), Some("APPLICATION/JSONL")], 1),
        ("its own framing", own(), &[None, Some("application/avro"), Some("avro/binary")], 1),
        ("a container file", file, &[None, Some("application/avro")], 1),
        ("OTLP", OTLP.into(), &[None, Some("application/x-protobuf"), Some("application/protobuf")], 6),
    ];
    for (what, value, types, samples) in cases {
        for named in types {
            let (batch, lacks) = read(*named, value.clone()).unwrap_or_else(|error| panic!("{what} as {named:?}: {error}"));
            assert_eq!((batch.samples.len(), batch.unread, lacks), (samples, 0, None), "{what} as {named:?}");
            assert_eq!(batch.producer.is_some(), what == "its own framing");
        }
    }
    let (batch, _) = read(None, format!("\n {LINE}\n\n{LINE}\n")).unwrap();
    assert_eq!((batch.samples.len(), batch.samples[0].time, batch.samples[0].kind), (2, AT, Kind::Gauge), "without a time, that of its append");
}

#[test]
fn a_broken_sample_among_good_ones_is_counted_and_told() {
    let (batch, lacks) =
        read(None, format!("{LINE}\nnot json\n{LINE}\n{{\"target\":\"api\"}}\n{{\"target\":\"a/B/c\",\"metric\":\"m\",\"value\":1,\"time\":1764000000}}"))
            .unwrap();
    assert_eq!((batch.samples.len(), batch.unread), (2, 3));
    let lacks = lacks.unwrap();
    assert!(
        lacks.starts_with("3 of 5 samples cannot be used: line 2: ") && lacks.contains("; line 4: ") && lacks.contains("times are Unix milliseconds"),
        "{lacks}"
    );
    let (batch, lacks) = read(Some("application/json"), "x\n".repeat(1_000)).unwrap();
    assert_eq!((batch.samples.len(), batch.unread), (0, 1_000));
    assert!(lacks.as_ref().is_some_and(|said| said.ends_with("; and 997 more") && said.len() < 1_000), "{lacks:?}");
}

#[test]
fn what_cannot_be_read_is_refused_with_a_plain_reason() {
    let numbered = container(&SampleBatch { producer: Some("p".to_owned()), sequence: Some(1), ..SampleBatch::default() });
    let cases = [
        read(Some("text/plain"), LINE),
        read(Some("application/avro"), LINE),
        read(Some("application/x-protobuf"), LINE),
        read(None, ""),
        read(Some("application/x-ndjson"), "\n\n"),
        read(None, "queue_depth 3"),
        read(None, [0, 0, 0, 0, 1, 2]),
        read(None, numbered),
        read(None, vec![b'{'; MAX_RECORD_BYTES + 1]),
        read(Some("application/json"), own()).and_then(|(_, lacks)| Err(lacks.unwrap())),
    ];
    insta::assert_snapshot!(cases.map(Result::unwrap_err).join("\n"));
}

/// A sample by the id of a registry, once that is known; its first byte tells it where nothing else does.
#[test]
fn a_message_by_the_id_of_a_registry_is_read_by_its_schema() {
    const ID: u32 = 9_001;
    let framed = [&[0][..], &ID.to_be_bytes(), &own()[10..]].concat();
    assert!(read(None, framed.clone()).is_err_and(|reason| reason.contains("schema 9001 of a registry")));
    wire::schemas::held().unwrap().learn(ID, Ok(wire::schemas::RecordType::SampleBatch.schema_json())).unwrap();
    for named in [None, Some("application/avro")] {
        assert_eq!(read(named, framed.clone()).unwrap(), read(None, own()).unwrap());
    }
    assert!(read(None, [&framed[..], &[7]].concat()).is_err_and(|reason| reason.contains("1 bytes follow the end")));
    assert_eq!(read(None, [0, 0, 1]).unwrap_err(), "begins with 00, and 3 bytes are too few for the id of a registry's schema");
    assert_eq!((wire::registry_id(&framed), wire::registry_id(&own()), wire::unread_id(&framed)), (Some(ID.into()), None, None));
    // What is known of an id stays.
    wire::schemas::held().unwrap().learn(ID, Err("gone".to_owned())).unwrap();
    assert!(read(None, framed).is_ok());
}

/// Elsewhere than on `metrics` there is the framing of the log alone.
#[test]
fn only_samples_may_be_written_in_other_ways() {
    assert!(matches!(wire::read(Topic::Control, &record(Some("application/json"), LINE)), Err(WireError::Malformed { .. })));
    let message = Message::Control(crate::model::ControlEntry::RoundEnd(crate::model::RoundEnd { source: "s".to_owned(), round: 1 }));
    assert_eq!(wire::read(Topic::Control, &record(None, wire::encode(&message))).unwrap(), wire::Read { message, lacks: None });
}

/// A name that stands once in a request, and once with each sample in the log.
#[test]
fn what_grows_beyond_the_limit_is_refused_whole() {
    let long = format!("prod/Deployment/{}", "x".repeat(200));
    let target = [field(1, b"loadline.target"), field(2, field(1, long.as_bytes()))].concat();
    let point = field(1, [&[0x21][..], &1.0_f64.to_le_bytes()].concat());
    let metric = [field(1, b"m"), field(5, point.repeat(90_000))].concat();
    let request = field(1, [field(1, field(1, target)), field(2, field(2, metric))].concat());
    assert!(request.len() < 4 << 20);
    let mut samples = 0;
    let refused = each(Format::Otlp, &request, AT, |_| {
        samples += 1;
        Ok(())
    });
    assert!(refused.as_ref().is_err_and(|reason| reason.contains("more than 16 MiB")), "{refused:?} after {samples}");
}
