//! Looks at a shop hour by hour: nothing is ever lost, and all is as the model has it.

use std::collections::BTreeMap;

use crate::customers::{CUSTOMERS, Hour, LATEST, LATEST_PIECES};
use crate::functions::What;
use crate::model::Shop;
use crate::pipeline::Seen;

/// How often it says how things are.
const HOURS_BETWEEN_LINES: usize = 12;

/// Where all pieces of an item are.
#[derive(Clone, Copy, Debug, Default)]
struct Pieces {
    delivered: i64,
    left: i64,
    in_carts: i64,
    sold: i64,
}

pub struct Audit {
    hours: Vec<Hour>,
    shop: Shop,
    delivered: BTreeMap<String, i64>,
    sold: BTreeMap<String, i64>,
    receipts: usize,
    out_of_stock: usize,
    given_up: usize,
}

impl Audit {
    pub fn new(hours: Vec<Hour>) -> Self {
        let (shop, delivered, sold) = (Shop::default(), BTreeMap::new(), BTreeMap::new());
        Audit { hours, shop, delivered, sold, receipts: 0, out_of_stock: 0, given_up: 0 }
    }

    /// Looks at an hour that is over.
    ///
    /// # Panics
    ///
    /// If something is not as it should be.
    pub fn check(&mut self, number: usize, seen: &Seen) {
        for (item, pieces) in &self.hours[number].delivered {
            *self.delivered.entry((*item).to_owned()).or_default() += pieces;
        }
        for notice in &seen.notices {
            match &notice.what {
                What::OutOfStock(_) => self.out_of_stock += 1,
                What::GivenUp(_) => self.given_up += 1,
                What::Receipt(basket) => {
                    self.receipts += 1;
                    for (item, pieces) in &basket.0 {
                        *self.sold.entry(item.clone()).or_default() += pieces;
                    }
                }
            }
        }
        let is_last = number + 1 == self.hours.len();
        let items = self.pieces(seen);
        for (item, Pieces { delivered, left, in_carts, sold }) in &items {
            let found = left + in_carts + sold;
            assert_eq!(found, *delivered, "{item} after hour {number}: {left} in stock");
        }
        assert!(seen.least >= 0, "there were {} pieces of something", seen.least);
        match is_last {
            true => self.rush(seen, &items),
            false => self.compare(number, seen),
        }
        if is_last || (number + 1).is_multiple_of(HOURS_BETWEEN_LINES) {
            let sum = |of: fn(&Pieces) -> i64| items.values().map(of).sum::<i64>();
            println!(
                "after hour {:>2}: {:>3} in stock, {:>3} in {:>2} carts, {:>3} sold",
                number + 1,
                sum(|pieces| pieces.left),
                sum(|pieces| pieces.in_carts),
                seen.baskets.len(),
                sum(|pieces| pieces.sold),
            );
        }
        if is_last {
            self.print(&items);
        }
    }

    fn pieces(&self, seen: &Seen) -> BTreeMap<String, Pieces> {
        let mut items = BTreeMap::<String, Pieces>::new();
        let mut add = |item: &String, add: fn(&mut Pieces) -> &mut i64, pieces: i64| {
            *add(items.entry(item.clone()).or_default()) += pieces;
        };
        self.delivered.iter().for_each(|(item, count)| add(item, |at| &mut at.delivered, *count));
        seen.left.iter().for_each(|(item, count)| add(item, |at| &mut at.left, *count));
        self.sold.iter().for_each(|(item, count)| add(item, |at| &mut at.sold, *count));
        let baskets = seen.baskets.values().flat_map(|basket| &basket.0);
        baskets.for_each(|(item, count)| add(item, |at| &mut at.in_carts, *count));
        items
    }

    /// Most hours are certain: no two customers want the same thing.
    fn compare(&mut self, number: usize, seen: &Seen) {
        let expected = self.shop.live(number, &self.hours[number]);
        let mut notices = seen.notices.clone();
        notices.sort_unstable();
        assert_eq!(notices, expected, "what customers were told in hour {number}");
        assert_eq!(seen.left, self.shop.left, "what is in stock after hour {number}");
        assert_eq!(seen.baskets, self.shop.baskets, "what is in carts after hour {number}");
    }

    /// In the last hour everybody wants the same: somebody gets each piece, whoever it is.
    fn rush(&self, seen: &Seen, items: &BTreeMap<String, Pieces>) {
        let Pieces { left, in_carts, .. } = items[LATEST];
        assert_eq!((left, in_carts), (0, LATEST_PIECES), "{LATEST} in stock and in carts");
        let latest = What::OutOfStock(LATEST.to_owned());
        let without = seen.notices.iter().filter(|notice| notice.what == latest).count() as i64;
        assert_eq!(without, CUSTOMERS as i64 - LATEST_PIECES, "customers without {LATEST}");
        println!("in the last hour {CUSTOMERS} customers wanted {LATEST}: {in_carts} have one");
    }

    fn print(&self, items: &BTreeMap<String, Pieces>) {
        println!("{:>12} {:>9} {:>5} {:>8} {:>5}", "", "delivered", "left", "in carts", "sold");
        for (item, Pieces { delivered, left, in_carts, sold }) in items {
            println!("{item:>12} {delivered:>9} {left:>5} {in_carts:>8} {sold:>5}");
        }
        let Audit { receipts, out_of_stock, given_up, .. } = self;
        println!(
            "{receipts} carts paid for, {given_up} given up, {out_of_stock} times out of stock, \
             and not a piece lost"
        );
    }
}
