//! Panics on the threads that simulate: caught, with their message and their place, and not printed where they happen, as
//! a scenario is played many times until its shortest form is found.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does something; where it panics: the message, and the place in the source.
///
/// # Errors
/// With the panic.
pub(super) fn caught<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| if CATCHES.get() { remember(panic) } else { before(panic) }));
    });
    LAST.take();
    let before = CATCHES.replace(true);
    // What it was doing is dropped with it.
    let done = catch_unwind(AssertUnwindSafe(act));
    CATCHES.set(before);
    done.map_err(|_| last().unwrap_or_else(|| "a panic without a message".to_owned()))
}

/// The last panic on this thread since [`caught`] was called last, also one that somebody further inside has caught.
pub(super) fn last() -> Option<String> {
    LAST.with_borrow(Clone::clone)
}

fn remember(panic: &PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&str>().copied().or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("a value that is no text");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    LAST.set(Some(format!("{message}, at {place}")));
}
