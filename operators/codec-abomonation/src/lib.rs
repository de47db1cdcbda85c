//! **Messages as copies of memory, between workers of the same build. Read this before you use it:**
//!
//! * **It is unsound, and nobody will repair it.** It builds on the crate `abomonation`, which has a security
//!   advisory without a fix ([RUSTSEC-2021-0120]): it writes whole values as they lie in memory, the unused bytes
//!   between their fields and their addresses included, and makes values of bytes that nobody has looked at.
//!   Whoever can send bytes to a process can make it do anything.
//! * **Some types abort debug builds**, where the standard library notices what `abomonation` does. Those that are
//!   known to do so do not compile here.
//! * **It is no faster than safe alternatives.** The README has a table, and the command that makes one on your
//!   machine. What messages are without this crate is shorter, and for most of them made and read in less time.
//! * **It is for workers of the same build only.** Each message carries [an id](build_id) of the program's file, and
//!   one from another build is refused before it is read.
//! * **It is never for snapshots**, or for anything else that is kept. [`Abomonated`] has these bytes between
//!   the workers of a loop and nowhere else: in a snapshot, in an exchange of plain timely, and for serde in
//!   general it is what the value in it is.
//!
//! It is here because programs that have been built on `abomonation` can go on with its types, and measure.
//! Nothing depends on it; a program that wants it says so in its `Cargo.toml` and in the type of its messages.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use timely_statefun_codec_abomonation::{Abomonated, abomonable};
//! use timely_statefun_operators::crossing;
//!
//! abomonable! {
//!     #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//!     pub struct Transfer {
//!         amount: u64,
//!         memo: String,
//!     }
//! }
//!
//! let sent = Abomonated(Transfer { amount: 7, memo: "for lunch".to_owned() });
//! let mut bytes = Vec::new();
//! crossing::write(&sent, &mut bytes)?;
//! assert_eq!(crossing::read::<Abomonated<Transfer>>(&bytes)?.memo, "for lunch");
//! // For everybody else, it is a transfer.
//! assert_eq!(serde_json::to_string(&sent)?, r#"{"amount":7,"memo":"for lunch"}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In a program of functions, `Abomonated<Transfer>` is the program's message type and the input of functions.
//!
//! # What is refused
//!
//! While compiling: types that contain references, boxes, or anything else whose layout this crate does not know;
//! types in which something that must be aligned lies behind something of any length, such as a `Vec<u64>` next
//! to a `String`; types that must be aligned to more than 16 bytes; and types of no size.
//!
//! While running, with a panic of the worker that says why, which [ends the program][execute]: bytes from another
//! build or of another type, and bytes that are cut off or too many. What cannot be noticed is bytes of the right
//! length that were changed on their way.
//!
//! [RUSTSEC-2021-0120]: https://rustsec.org/advisories/RUSTSEC-2021-0120.html
//! [execute]: https://docs.rs/timely-statefun
#![doc(html_root_url = "https://docs.rs/timely-statefun-codec-abomonation")]

mod abomonable;
mod build;
mod message;

pub use abomonable::{Abomonable, Layout};
pub use build::build_id;
pub use message::Abomonated;

/// What [`abomonable!`] needs wherever it is used.
#[doc(hidden)]
pub mod macros {
    pub use abomonation::Abomonation;
}

/// Its code is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
