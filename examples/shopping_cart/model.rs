//! The same shop without functions and messages: what must be in stock and in carts, and who is told what.

use std::collections::BTreeMap;

use crate::customers::Hour;
use crate::functions::{Basket, Notice, PATIENCE_HOURS, What};

/// All of the shop.
#[derive(Clone, Debug, Default)]
pub struct Shop {
    pub left: BTreeMap<String, i64>,
    pub baskets: BTreeMap<u64, Basket>,
    /// In which hour something came into a cart at last.
    filled: BTreeMap<u64, usize>,
}

impl Shop {
    /// One more hour, and what customers are told in it.
    pub fn live(&mut self, number: usize, hour: &Hour) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut tell = |customer: u64, what| notices.push(Notice { customer, what });
        let patience = PATIENCE_HOURS as usize;
        let customers: Vec<u64> = self.baskets.keys().copied().collect();
        for customer in customers {
            if self.filled[&customer] + patience <= number {
                tell(customer, What::GivenUp(self.clear(customer)));
            }
        }
        for (item, pieces) in &hour.delivered {
            *self.left.entry((*item).to_owned()).or_default() += pieces;
        }
        for (customer, item, pieces) in &hour.added {
            let left = self.left.entry((*item).to_owned()).or_default();
            if *left < *pieces {
                tell(*customer, What::OutOfStock((*item).to_owned()));
                continue;
            }
            *left -= pieces;
            let basket = self.baskets.entry(*customer).or_default();
            *basket.0.entry((*item).to_owned()).or_default() += pieces;
            self.filled.insert(*customer, number);
        }
        for customer in &hour.cleared {
            self.clear(*customer);
        }
        for customer in &hour.paid {
            if let Some(basket) = self.baskets.remove(customer) {
                tell(*customer, What::Receipt(basket));
            }
        }
        notices.sort_unstable();
        notices
    }

    /// Puts back what is in a cart.
    fn clear(&mut self, customer: u64) -> Basket {
        let basket = self.baskets.remove(&customer).unwrap_or_default();
        for (item, pieces) in &basket.0 {
            *self.left.entry(item.clone()).or_default() += pieces;
        }
        basket
    }
}
