use super::*;
use proptest::prelude::*;

fn node(text: &str) -> Node {
    let is_number = text.parse::<f64>().is_ok();
    Node::bare(if is_number { Value::Number(text.to_owned()) } else { Value::Text(text.to_owned()) })
}

#[test]
fn amounts_under_each_unit() {
    use Unit::{Bytes, Cores, Count, Ratio, Seconds};
    for (text, unit, expected) in [
        ("0.7", Some(Cores), "0.7"),
        ("700m", Some(Cores), "0.7"),
        ("1.5", Some(Cores), "1.5"),
        ("100u", Some(Cores), "0.0001"),
        ("5n", Some(Cores), "0.000000005"),
        ("0.5n", Some(Cores), "0.000000001"),
        ("2Gi", Some(Bytes), "2147483648"),
        ("512M", Some(Bytes), "512000000"),
        ("1.5Ki", Some(Bytes), "1536"),
        ("0.0000000001Ei", Some(Bytes), "115292150.460684698"),
        ("0.000000000000000000000000000000000001Ei", Some(Bytes), "0.000000001"),
        ("0.0000000001h", Some(Seconds), "0.00000036"),
        ("1e3", Some(Bytes), "1000"),
        ("3k", Some(Count), "3000"),
        ("250m", Some(Count), "0.25"),
        ("2k", None, "2000"),
        ("1E", Some(Count), "1000000000000000000"),
        ("300ms", Some(Seconds), "0.3"),
        ("1.5s", Some(Seconds), "1.5"),
        ("1h30m", Some(Seconds), "5400"),
        ("0.3", Some(Seconds), "0.3"),
        ("1%", Some(Ratio), "0.01"),
        ("0.5 %", Some(Ratio), "0.005"),
        ("0.01", Some(Ratio), "0.01"),
        ("150%", Some(Ratio), "1.5"),
    ] {
        assert_eq!(amount(&node(text), unit).map(|a| a.to_string()), Ok(expected.to_owned()), "{text} as {unit:?}");
    }
}

#[test]
fn amounts_that_do_not_fit_say_why() {
    use Unit::{Bytes, Cores, Count, Ratio, Seconds};
    for (text, unit, code) in [
        ("5m", Some(Seconds), "ambiguous-unit"),
        ("5m", None, "ambiguous-unit"),
        ("5m", Some(Ratio), "ambiguous-unit"),
        ("300ms", None, "unit"),
        ("300ms", Some(Count), "unit"),
        ("1h", Some(Cores), "unit"),
        ("70%", Some(Cores), "unit"),
        ("70%", None, "unit"),
        ("2Gi", Some(Seconds), "unit"),
        ("2Gi", Some(Ratio), "unit"),
        ("512m", Some(Bytes), "unit"),
        ("-1", Some(Count), "amount"),
        ("-1k", Some(Count), "amount"),
        ("2E", Some(Count), "amount"),
        ("1e400", Some(Count), "amount"),
        ("ten", Some(Count), "amount"),
        ("1.2.3", Some(Count), "amount"),
        ("", Some(Count), "amount"),
        ("5 Gi", Some(Bytes), "amount"),
        ("5gi", Some(Bytes), "amount"),
    ] {
        assert_eq!(amount(&node(text), unit).map_err(|f| f.code), Err(code), "{text} as {unit:?}");
    }
    let fault = amount(&node("5m"), Some(Unit::Seconds)).unwrap_err();
    assert_eq!(fault.message, "`5m` could be 5 minutes (300 seconds) or 5 thousandths (0.005)");
    assert_eq!(fault.mend, "write `300s` for the one, `5ms` for the other");
}

#[test]
fn durations() {
    let hour = Duration::from_secs(3600);
    for (text, millis) in [("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("10m30s", 630_000), ("1m0.5s", 60_500), ("250ms", 250), ("0s", 0), ("0", 0)] {
        assert_eq!(duration(&node(text), hour), Ok(Duration::from_millis(millis)), "{text}");
    }
    for (text, code) in [
        ("30", "duration"),
        ("30 s", "duration"),
        ("s", "duration"),
        ("5s1m", "duration"),
        ("5s5s", "duration"),
        ("5M", "duration"),
        ("-5s", "duration"),
        ("1d", "duration"),
        ("0.1ms", "duration"),
        ("2h", "limit"),
        ("99999999999h", "limit"),
        ("99999999999999999999999999999999999h", "duration"),
    ] {
        assert_eq!(duration(&node(text), hour).map_err(|f| f.code), Err(code), "{text}");
    }
}

#[test]
fn percents_are_whole_and_written_with_their_sign() {
    assert_eq!(whole_percent(&node("70%")), Ok(70));
    assert_eq!(whole_percent(&node("250 %")), Ok(250));
    for text in ["0%", "-5%", "70.5%", "70", "0.7", "abc", "9999999%"] {
        assert!(whole_percent(&node(text)).is_err(), "{text}");
    }
    assert_eq!(whole_percent(&node("0.7")).unwrap_err().mend, "write `70%`");
    assert_eq!(whole_percent(&node("7")).unwrap_err().mend, "write `7%` or `700%`");
}

proptest! {
    #[test]
    fn what_is_shown_reads_back(millis in 0_u64..100_000_000, nanos in 0_i128..1_000_000_000_000_000_000_000_000_000) {
        let shown = show_duration(Duration::from_millis(millis));
        prop_assert_eq!(duration(&Node::bare(Value::Text(shown)), Duration::MAX), Ok(Duration::from_millis(millis)));
        for unit in [Unit::Seconds, Unit::Bytes, Unit::Cores, Unit::Ratio, Unit::Count] {
            for nanos in [nanos, nanos / 1_000_000 * 1_000_000, nanos / 1_000_000_000 * 1_000_000_000, i128::from(millis) << 30] {
                let shown = show_amount(Amount::from_nanos(nanos), unit);
                prop_assert_eq!(amount(&node(&shown), Some(unit)), Ok(Amount::from_nanos(nanos)), "{} as {:?}", shown, unit);
            }
        }
    }

    #[test]
    fn no_text_panics(text in "[0-9.eE+%smhunkMGi -]{0,40}") {
        for unit in [None, Some(Unit::Seconds), Some(Unit::Bytes), Some(Unit::Ratio)] {
            let _ = amount(&Node::bare(Value::Text(text.clone())), unit);
        }
        let _ = duration(&Node::bare(Value::Text(text.clone())), Duration::MAX);
        let _ = whole_percent(&Node::bare(Value::Text(text)));
    }
}
