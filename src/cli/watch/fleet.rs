//! The fleet: a line a target, and what a person should look at.

use crossterm::event::KeyCode;

use super::super::{Paint, status, table};
use super::follow::Known;
use super::screen::fit;
use crate::edge::api::{Status, TargetStatus};
use crate::model::TargetId;

/// Lines that are no targets: the head, the summary, the table's own head, the keys.
const FRAME: usize = 4;

/// Columns that are left out, the first one first, until so many are left for why: what a target does says its mode where it matters, and a
/// target's own view has the others.
const LEAST_WHY: usize = 40;
const SPARED: [&str; 3] = ["MODE", "RANGE", "READY"];

/// The fewest columns of a name.
const LEAST_NAME: usize = 16;

/// The end of a name that is too long, which tells targets apart.
fn shortened(name: &str, most: usize) -> String {
    let count = name.chars().count();
    if count <= most { name.to_owned() } else { format!("…{}", name.chars().skip(count + 1 - most).collect::<String>()) }
}

/// What is chosen, and what is left out.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    /// The target that is chosen: by name, so that it stays where others come and go.
    chosen: Option<TargetId>,
    /// The first row that is shown.
    first: usize,
    filter: String,
    typing: bool,
    attention: bool,
}

impl Fleet {
    /// Whether keys are letters of the filter.
    pub(super) fn is_typing(&self) -> bool {
        self.typing
    }

    /// Takes a key into the filter.
    pub(super) fn type_in(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) => self.filter.push(c),
            _ => {}
        }
    }

    /// Does what a key says.
    pub(super) fn key(&mut self, key: KeyCode, known: &Known, height: usize) {
        let names: Vec<TargetId> = self.shown(known).iter().map(|t| t.target.clone()).collect();
        let at = self.chosen.as_ref().and_then(|chosen| names.iter().position(|name| name == chosen)).unwrap_or(0);
        let page = height.saturating_sub(FRAME).max(1);
        let to = match key {
            KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => at + 1,
            KeyCode::PageUp => at.saturating_sub(page),
            KeyCode::PageDown | KeyCode::Char(' ') => at + page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            KeyCode::Char('/') => return self.typing = true,
            KeyCode::Char('a') => return self.attention = !self.attention,
            KeyCode::Esc => return (self.filter, self.attention) = (String::new(), false),
            _ => return,
        };
        self.chosen = names.get(to.min(names.len().saturating_sub(1))).cloned();
    }

    /// The target that is chosen.
    pub(super) fn chosen(&self, known: &Known) -> Option<TargetId> {
        let shown = self.shown(known);
        let chosen = self.chosen.as_ref().and_then(|chosen| shown.iter().find(|t| t.target == *chosen));
        chosen.or(shown.first()).map(|t| t.target.clone())
    }

    fn shown<'a>(&self, known: &'a Known) -> Vec<&'a TargetStatus> {
        let all = known.status.iter().flat_map(|status| &status.targets);
        let filter = self.filter.to_lowercase();
        all.filter(|t| (!self.attention || t.needs_attention()) && t.target.as_str().to_lowercase().contains(&filter)).collect()
    }

    /// What to draw.
    pub(super) fn lines(&mut self, known: &Known, head: String, width: usize, height: usize, paint: Paint) -> Vec<String> {
        let mut lines = vec![head];
        let Some(status) = &known.status else {
            return lines;
        };
        let shown = self.shown(known);
        let (all, wrong) = (status.targets.len(), status.targets.iter().filter(|t| t.needs_attention()).count());
        lines.push(self.summary(all, shown.len(), wrong, paint));
        let chosen = self.chosen.as_ref().and_then(|chosen| shown.iter().position(|t| t.target == *chosen)).unwrap_or(0);
        let room = height.saturating_sub(FRAME);
        let mut told = foot(status, shown.get(chosen).copied(), width, room, paint);
        let rows = room.saturating_sub(told.len()).max(1);
        self.first = self.first.min(chosen).max((chosen + 1).saturating_sub(rows)).min(shown.len().saturating_sub(rows));
        // The widths are those of all targets, so that nothing jumps when it is scrolled.
        let row = |target: &&TargetStatus| {
            let mut row = status::row(target, status.at, paint);
            row[0] = paint.bold(&shortened(target.target.as_str(), (width * 3 / 10).max(LEAST_NAME)));
            row
        };
        let table = spared(shown.iter().map(row).collect(), width);
        for (n, row) in table.into_iter().enumerate() {
            match n.checked_sub(1) {
                None => lines.push(paint.dim(&row)),
                Some(n) if n == chosen => lines.push(paint.chosen(&plain(&fit(&row, width)))),
                Some(n) if (self.first..self.first + rows).contains(&n) => lines.push(row),
                Some(_) => {}
            }
        }
        if shown.is_empty() {
            lines.push(if all == 0 {
                "No target yet: put a policy into the directory that Loadline reads.".to_owned()
            } else {
                "No target matches.".to_owned()
            });
        }
        lines.resize_with(height.saturating_sub(1 + told.len()), String::new);
        lines.append(&mut told);
        lines.push(if self.typing {
            format!("/{}▏  {}", self.filter, paint.dim("Enter keeps the filter, Esc clears it"))
        } else {
            paint.dim("q quit  ↑↓ choose  Enter open  / filter  a attention")
        });
        lines
    }

    fn summary(&self, all: usize, shown: usize, wrong: usize, paint: Paint) -> String {
        let targets = if all == 1 { "1 target".to_owned() } else { format!("{all} targets") };
        let attention = match wrong {
            0 => paint.green("none needs attention"),
            1 => paint.yellow("1 needs attention"),
            n => paint.yellow(&format!("{n} need attention")),
        };
        let mut filters = Vec::new();
        if self.attention {
            filters.push("those that need attention".to_owned());
        }
        if !self.filter.is_empty() {
            filters.push(format!("names with \"{}\"", self.filter));
        }
        let filtered = if filters.is_empty() { String::new() } else { paint.bold(&format!(" · {shown} shown: {}", filters.join(", "))) };
        format!("{} · {attention}{filtered}", paint.bold(&targets))
    }
}

/// The lines below the table, in `room` lines for both: what a person should look at, then why the chosen one has what it has, with its alerts. The
/// targets are what is watched: troubles take a third at most, and the chosen one leaves a row.
fn foot(status: &Status, chosen: Option<&TargetStatus>, width: usize, room: usize, paint: Paint) -> Vec<String> {
    let own = chosen.map(|chosen| {
        troubles(&Status { started_at: status.started_at, at: status.at, targets: vec![chosen.clone()], lag: Vec::new(), log: None, alerts: Vec::new() }, paint)
    });
    let own = own.unwrap_or_default();
    let of_others = troubles(status, paint).into_iter().filter(|line| !own.contains(line));
    let mut told: Vec<String> = of_others.flat_map(|line| table::wrapped(&line, width)).collect();
    cut(&mut told, (room / 3).max(1), "loadline status", paint);
    let Some(chosen) = chosen else { return told };
    let mut why = table::wrapped(&format!("› {}: {}", chosen.target, chosen.reason), width);
    why.extend(own.iter().flat_map(|line| table::wrapped(line, width)));
    cut(&mut why, room.saturating_sub(told.len() + 1), "Enter", paint);
    told.append(&mut why);
    told
}

/// So many lines of it, the last of which says how many are missing, and where they are.
fn cut(lines: &mut Vec<String>, most: usize, place: &str, paint: Paint) {
    if lines.len() > most {
        let more = lines.len() - most + 1;
        lines.truncate(most.saturating_sub(1));
        if most > 0 {
            lines.push(paint.yellow(&format!("! {more} more: {place}")));
        }
    }
}

fn troubles(status: &Status, paint: Paint) -> Vec<String> {
    let mut out = Vec::new();
    // Writing into memory cannot fail.
    let _ = status::troubles(&mut out, status, paint);
    String::from_utf8_lossy(&out).lines().map(str::to_owned).collect()
}

/// The table of the rows of [`status::row`] without the columns that leave too little room for why.
fn spared(mut rows: Vec<Vec<String>>, width: usize) -> Vec<String> {
    let mut header = status::HEADER.to_vec();
    for column in SPARED {
        let taken = |n: usize| rows.iter().map(|row| table::seen(&row[n])).chain([header[n].len()]).max().unwrap_or(0) + 2;
        let before: usize = (0..header.len() - 1).map(taken).sum();
        if before + LEAST_WHY <= width {
            break;
        }
        if let Some(n) = header.iter().position(|name| *name == column) {
            header.remove(n);
            rows.iter_mut().for_each(|row| drop(row.remove(n)));
        }
    }
    rendered(&header, rows)
}

/// A table as lines.
pub(super) fn rendered(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Vec<String> {
    let mut out = Vec::new();
    let _ = table::write(&mut out, header, rows);
    String::from_utf8_lossy(&out).lines().map(str::to_owned).collect()
}

/// A line without its colours.
fn plain(line: &str) -> String {
    let (mut text, mut hidden) = (String::with_capacity(line.len()), false);
    for c in line.chars() {
        match (hidden, c) {
            (false, '\u{1b}') => hidden = true,
            (true, 'm') => hidden = false,
            (true, _) => {}
            (false, c) => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::follow::Answer;
    use super::*;
    use crate::edge::view::View;
    use crate::edge::view::tests::{at, decision};
    use crate::model::{Alert, AlertState, Audit, Decision};

    fn known(names: &[&str]) -> Known {
        let view = View::new();
        for name in names {
            let of: TargetId = format!("prod/Deployment/{name}").parse().unwrap();
            view.audit(at(10), Audit::Decision(Decision { target: of, ..decision(10, 3, 5) }));
        }
        let mut known = Known::default();
        let status = Status { started_at: at(0), at: at(20), targets: view.statuses(), lag: Vec::new(), log: None, alerts: Vec::new() };
        known.answer(Answer::Fleet(Box::new(status)));
        known
    }

    fn lines(fleet: &mut Fleet, known: &Known, height: usize) -> Vec<String> {
        fleet.lines(known, "head".to_owned(), 80, height, Paint::PLAIN)
    }

    #[test]
    fn each_target_is_a_line_and_the_keys_are_the_last() {
        let (mut fleet, known) = (Fleet::default(), known(&["api", "web"]));
        let lines = lines(&mut fleet, &known, 10);
        assert_eq!((lines.len(), lines[0].as_str()), (10, "head"));
        assert!(lines[1].starts_with("2 targets"), "{}", lines[1]);
        assert!(lines[3].starts_with("prod/Deployment/api") && lines[4].contains("Deployment/web"), "{lines:#?}");
        assert!(lines[9].contains("q quit"));
    }

    #[test]
    fn what_is_chosen_is_in_sight_and_stays_the_same_target() {
        let names: Vec<String> = (10..60).map(|n| format!("t{n}")).collect();
        let all = known(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut fleet = Fleet::default();
        (0..30).for_each(|_| fleet.key(KeyCode::Down, &all, 10));
        assert!(lines(&mut fleet, &all, 10).iter().any(|line| line.starts_with("prod/Deployment/t40")), "scrolled to it");
        assert_eq!(fleet.chosen(&all).unwrap().name(), "t40");
        let fewer = known(&["t40", "t50"]);
        assert_eq!(fleet.chosen(&fewer).unwrap().name(), "t40", "others went");
        fleet.key(KeyCode::End, &all, 10);
        assert!(lines(&mut fleet, &all, 10).iter().any(|line| line.starts_with("prod/Deployment/t59")));
    }

    #[test]
    fn a_filter_is_typed_and_cleared() {
        let (mut fleet, known) = (Fleet::default(), known(&["api", "web"]));
        fleet.key(KeyCode::Char('/'), &known, 10);
        "WE".chars().for_each(|c| fleet.type_in(KeyCode::Char(c)));
        assert!(fleet.is_typing() && lines(&mut fleet, &known, 10)[9].starts_with("/WE"));
        fleet.type_in(KeyCode::Enter);
        let shown = lines(&mut fleet, &known, 10);
        assert!(shown[1].contains("1 shown: names with \"WE\"") && shown[3].contains("web"), "{shown:#?}");
        assert_eq!(fleet.chosen(&known).unwrap().name(), "web");
        fleet.key(KeyCode::Esc, &known, 10);
        assert!(lines(&mut fleet, &known, 10)[3].contains("api"));
    }

    /// Why the chosen target has what it has stands below the table, in full, with its alerts.
    #[test]
    fn the_reason_of_the_chosen_one_is_read_at_80_columns() {
        let (mut fleet, mut known) = (Fleet::default(), known(&["api", "web"]));
        let reason =
            "RateLimit: queue_depth 4,000 jobs against 10 jobs per replica asks for 400, and no more than 4 replicas are added in 15 s after the last step";
        let message = "the replicas wait at the maximum of the policy while a metric asks for more than that, and have done so for 300 s";
        let status = known.status.as_mut().unwrap();
        status.targets[1].reason = reason.to_owned();
        status.targets[1].alerts.push(Alert { message: message.to_owned(), ..crate::edge::view::tests::alert(AlertState::Firing) });
        fleet.key(KeyCode::Down, &known, 24);
        for (width, height) in [(80, 24), (60, 15)] {
            let lines = fleet.lines(&known, "head".to_owned(), width, height, Paint::PLAIN);
            assert!(lines.len() <= height && lines[4].contains("Deployment/web"), "{lines:#?}");
            assert!(lines[2].contains("WHY") && !lines[2].contains("MODE"), "{}", lines[2]);
            let shown: Vec<String> = lines.iter().map(|line| fit(line, width).trim().to_owned()).collect();
            let shown = shown.join(" ");
            assert!(shown.contains(&format!("› prod/Deployment/web: {reason}")) && shown.contains(message), "at {width}: {shown}");
            assert_eq!(shown.matches(message).count(), 1, "once: {shown}");
        }
    }

    /// A long name leaves room for what is watched.
    #[test]
    fn a_long_name_hides_no_column() {
        let name = format!("{}-7f9c", "checkout-payment-settlement-reconciliation-".repeat(4).trim_end_matches('-'));
        let (mut fleet, known) = (Fleet::default(), known(&[&name, "web"]));
        let shown = lines(&mut fleet, &known, 10);
        for (line, expected) in [(&shown[2], ["REPLICAS", "DOES", "WHY"].as_slice()), (&shown[3], &["3 → 5", "scales out", "cpu 84 %", "7f9c"])] {
            let fitted = fit(line, 80);
            assert!(expected.iter().all(|part| fitted.contains(part)), "{fitted}");
        }
    }

    #[test]
    fn a_small_terminal_shows_what_fits() {
        let (mut fleet, known) = (Fleet::default(), known(&["api", "web"]));
        for height in 0..8 {
            lines(&mut fleet, &known, height);
        }
        assert!(lines(&mut fleet, &known, 5)[3].contains("api"));
    }
}
