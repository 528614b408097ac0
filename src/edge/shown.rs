//! Decide, with somebody who looks on: each evaluation goes to the view, also one that changes nothing and is written nowhere.
//!
//! What is looked at changes nothing: the stage below sees the same input and its appends are the same. After a restart decide folds
//! the last signals again, and the view sees those evaluations again, at their times of then.

use std::sync::Arc;

use crate::edge::view::View;
use crate::log::Topic;
use crate::model::{Message, Signal};
use crate::stages::decide::{Decide, State};
use crate::stages::{Effects, Input, OnGap, Stage};

/// [`Decide`], whose evaluations a [`View`] sees.
pub struct Shown {
    decide: Decide,
    view: Arc<View>,
}

impl Shown {
    /// Shows the evaluations of `decide` to `view`.
    pub fn new(decide: Decide, view: Arc<View>) -> Self {
        Shown { decide, view }
    }
}

impl Stage for Shown {
    type Record = Signal;
    type State = State;
    const NAME: &'static str = Decide::NAME;
    const INPUT: Topic = Decide::INPUT;
    const VERSION: u32 = Decide::VERSION;
    const TICK: Option<fn() -> Message> = Decide::TICK;
    const ON_GAP: Option<OnGap> = Decide::ON_GAP;
    const FLUSHES: bool = Decide::FLUSHES;

    fn needs_ticks(&self, state: &State) -> bool {
        self.decide.needs_ticks(state)
    }

    fn apply(&self, state: &mut State, input: Input<Signal>, effects: &mut Effects) {
        self.decide.apply(state, input, effects);
        effects.take_evaluated().iter().for_each(|decision| self.view.evaluated(decision));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::view::tests::{api, at, fleet, policy};
    use crate::model::Audit;
    use crate::stages::Located;

    /// Whoever looks on changes nothing: the same appends, and what the runtime asks of the stage.
    #[test]
    fn what_is_shown_is_decided_as_without_anybody_who_looks() {
        let spec = r#"{"target":{"apiVersion":"apps/v1","kind":"Deployment","name":"api"},"replicas":{"min":5,"max":60},"metrics":[{"name":"cpu","track":{"utilization":"70%"}}]}"#;
        let view = Arc::new(View::new());
        let shown = Shown::new(Decide::default(), Arc::clone(&view));
        let (mut plain_state, mut shown_state) = (State::default(), State::default());
        assert!(!shown.needs_ticks(&shown_state), "nothing is there that waits");
        for (offset, record) in (0..).zip([Signal::Policy(policy(1, Some(spec))), Signal::Fleet(fleet(1, 3, 3)), Signal::Fleet(fleet(2, 3, 2))]) {
            let input = || Input::Record(Located { partition: 0, offset, at: at(i64::try_from(offset).unwrap()), record: record.clone() });
            let (mut plain, mut looked_at) = (Effects::new(), Effects::new());
            Decide::default().apply(&mut plain_state, input(), &mut plain);
            shown.apply(&mut shown_state, input(), &mut looked_at);
            assert!(shown.needs_ticks(&shown_state));
            let appended = plain.take();
            // Another instance is ready, and nothing follows from it.
            let written = appended.iter().any(|effect| matches!(effect.message, Message::Audit(Audit::Decision(_))));
            assert_eq!(written, offset == 1, "{appended:?}");
            assert_eq!(appended, looked_at.take());
        }
        let status = view.statuses().pop().unwrap();
        assert_eq!((status.target, status.current, status.desired, status.at), (api(), Some(3), Some(5), Some(at(2))), "also the one that changed nothing");
        assert_eq!((Shown::NAME, Shown::INPUT, Shown::VERSION, Shown::FLUSHES), (Decide::NAME, Decide::INPUT, Decide::VERSION, Decide::FLUSHES));
        assert!(Shown::TICK.is_some() && Shown::ON_GAP.is_some(), "it lives by the clock, and asks for the policies again after a loss");
    }

    /// What the runtime asks of a stage beyond its fold is what decide says, too.
    #[test]
    fn it_is_decide_in_every_word() {
        assert_eq!((Shown::NAME, Shown::INPUT, Shown::VERSION, Shown::FLUSHES), (Decide::NAME, Decide::INPUT, Decide::VERSION, Decide::FLUSHES));
        assert_eq!(Shown::TICK.map(|tick| tick()), Decide::TICK.map(|tick| tick()));
        assert_eq!(Shown::ON_GAP.map(|ask| ask("x".to_owned())), Decide::ON_GAP.map(|ask| ask("x".to_owned())));
    }
}
