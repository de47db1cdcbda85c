//! The alerts that there must be, found by going through the events one by one.
//!
//! There are no functions and no messages here. Of the application it uses the formula of the model, and the
//! third party.

use std::collections::BTreeMap;

use crate::events::Day;
use crate::functions::{
    ATTEMPTS_MAX, Alert, COUNTED_DAYS, Features, Merchant, RISK_ACCEPTED, risk,
};
use crate::service;

pub fn alerts(days: &[Day]) -> Vec<Alert> {
    let mut alerts = Vec::new();
    // On which days frauds were confirmed.
    let mut confirmed = BTreeMap::<u64, Vec<u64>>::new();
    for (day, events) in (0..).zip(days) {
        for account in &events.confirmed {
            confirmed.entry(*account).or_default().push(day);
        }
        for transaction in &events.transactions {
            let of_account = confirmed.get(&transaction.account).into_iter().flatten();
            let frauds = of_account.filter(|then| day - **then < u64::from(COUNTED_DAYS)).count();
            let (merchant, frauds) =
                (merchant(transaction.merchant, transaction.number), frauds as u64);
            let features = Features { amount: transaction.amount, frauds, merchant };
            let risk = risk(&features);
            if risk > RISK_ACCEPTED {
                let (account, transaction) = (transaction.account, transaction.number);
                alerts.push(Alert { transaction, account, day, features, risk });
            }
        }
    }
    alerts
}

fn merchant(merchant: u64, transaction: u64) -> Merchant {
    for attempts in 1..=ATTEMPTS_MAX {
        if let Ok(score) = service::answer(merchant, transaction, attempts) {
            return Merchant { score: Some(score), attempts };
        }
    }
    Merchant { score: None, attempts: ATTEMPTS_MAX }
}
