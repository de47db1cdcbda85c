//! Functions as another team's crate would bring them: whom each phone speaks with, and whom most often.
//!
//! It knows nothing of the program that it is used in.

use serde::{Deserialize, Serialize};
use timely_statefun::{Egress, Function, FunctionType, Functions, TableSpec, ValueSpec, messages};

/// The address book of a phone, by its number.
pub const BOOK: FunctionType<Spoke> = FunctionType::new("contacts/book");
/// Phones and their favourites, as changes: whom they spoke with most often, and of several the smallest number.
pub const FAVOURITES: Egress<((u64, u64), isize)> = Egress::new("contacts/favourites");

/// How often, by the number of the other.
const CALLS: TableSpec<u64, u64> = TableSpec::new("calls");
const FAVOURITE: ValueSpec<u64> = ValueSpec::new("favourite");

/// Somebody spoke with this number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spoke(pub u64);

messages! {
    /// What these functions are told.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Message { Spoke(Spoke) }
}

pub fn functions() -> Functions<Message> {
    let book = Function::new(|context, Spoke(other): &Spoke| {
        let phone = context.id().as_number().ok_or("phones have numbers")?;
        let favourite = context.get(FAVOURITE).copied();
        let mut calls = context.table(CALLS);
        let often = calls.update(*other, |calls| *calls += 1);
        let most = favourite.and_then(|favourite| calls.get(&favourite).copied()).unwrap_or(0);
        let is_nearer = favourite.is_none_or(|favourite| *other < favourite);
        if favourite != Some(*other) && (often > most || often == most && is_nearer) {
            favourite.into_iter().for_each(|old| context.emit(FAVOURITES, ((phone, old), -1)));
            context.emit(FAVOURITES, ((phone, *other), 1));
            context.set(FAVOURITE, *other);
        }
        Ok(())
    });
    Functions::new().embedded(BOOK, book.table(CALLS).value(FAVOURITE)).egress(FAVOURITES)
}
