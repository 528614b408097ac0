//! The same work on several things at once.

use std::panic::resume_unwind;
use std::thread::scope;

/// Works on each item on a thread of its own, the first of them on this one; what came of each, in the order of the items. A single item needs no other
/// thread.
pub fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let Some((first, others)) = items.split_first() else { return Vec::new() };
    let work = &work;
    scope(|scope| {
        let others: Vec<_> = others.iter().map(|item| scope.spawn(move || work(item))).collect();
        let first = work(first);
        // A panic there is one here.
        let others = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        std::iter::once(first).chain(others).collect()
    })
}

/// As [`side_by_side`], each on a thread of its own, while this one does something else, again and again until all of it is done.
pub fn side_by_side_while<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync, meanwhile: &mut dyn FnMut()) -> Vec<R> {
    let work = &work;
    scope(|scope| {
        let all: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        while !all.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            meanwhile();
        }
        all.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn each_has_a_thread_of_its_own_and_they_are_answered_in_order() {
        let (doubled, threads): (Vec<u32>, HashSet<_>) = side_by_side(&[1, 2, 3, 4, 5], |item| (item * 2, thread::current().id())).into_iter().unzip();
        assert_eq!(doubled, [2, 4, 6, 8, 10]);
        assert_eq!(threads.len(), 5);
        assert!(threads.contains(&thread::current().id()));
        assert!(side_by_side(&[], |item: &u32| *item).is_empty());
    }

    #[test]
    fn who_waits_for_the_work_does_something_else() {
        let (calls, is_over) = (std::cell::Cell::new(0), std::sync::atomic::AtomicBool::new(false));
        let work = |item: &u32| {
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                thread::yield_now();
            }
            item * 2
        };
        let mut meanwhile = || {
            calls.set(calls.get() + 1);
            is_over.store(calls.get() >= 3, std::sync::atomic::Ordering::SeqCst);
        };
        assert_eq!(side_by_side_while(&[1, 2], work, &mut meanwhile), [2, 4]);
        assert!(calls.get() >= 3);
    }

    #[test]
    fn a_panic_in_the_work_is_one_of_who_asked() {
        assert!(std::panic::catch_unwind(|| side_by_side(&[1, 2, 3], |item| assert_ne!(*item, 2))).is_err());
    }
}
