//! The application: what is known of accounts and merchants, a model, and who asks all of them.
//!
//! Nothing here knows where events come from, or on which worker anything lives.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely_statefun::{
    Context, Egress, Function, FunctionResult, FunctionType, Functions, Outcome, ValueSpec,
};

use crate::service;

/// How often a fraud was confirmed on an account of late, by the account's number.
pub const COUNT: FunctionType<ToCount> = FunctionType::new("fraud/count");
/// What a third party knows of a merchant, by the merchant's number.
pub const SCORER: FunctionType<ToScorer> = FunctionType::new("fraud/merchant-scorer");
/// Says how suspicious a transaction is. It remembers nothing.
pub const MODEL: FunctionType<Features> = FunctionType::new("fraud/model");
/// One transaction, by its number.
pub const MANAGER: FunctionType<ToManager> = FunctionType::new("fraud/transaction-manager");
/// Transactions that somebody should look at.
pub const ALERTS: Egress<Alert> = Egress::new("fraud/alerts");

pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// For how long a confirmed fraud counts.
pub const COUNTED_DAYS: u32 = 30;
/// How often the third party is asked about one transaction, until it answers.
pub const ATTEMPTS_MAX: u32 = 3;
/// What is above this risk is an alert.
pub const RISK_ACCEPTED: u64 = 80;
/// How many questions to the third party may be under way on a worker.
const QUESTIONS_MAX: usize = 64;

const FRAUDS: ValueSpec<u64> = ValueSpec::new("frauds");
/// A transaction until there is a risk.
const PENDING: ValueSpec<Pending> = ValueSpec::typed("pending", "fraud/pending");

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Transaction {
    pub number: u64,
    pub account: u64,
    pub merchant: u64,
    /// In cents.
    pub amount: u64,
}

/// What the count of an account is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ToCount {
    /// A transaction was a fraud.
    Confirm,
    /// One that was confirmed is too long ago to count.
    Expire,
    /// Somebody wants to know.
    Query,
}

/// What the scorer of a merchant is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToScorer {
    /// Somebody wants to know, because of this transaction.
    Query { transaction: u64 },
    /// What became of a question to the third party.
    Answered { transaction: u64, attempt: u32, outcome: Outcome<u64> },
}

/// What the manager of a transaction is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ToManager {
    /// It is to be judged.
    Judge(Transaction),
    /// How many frauds there were.
    Frauds(u64),
    /// What is known of the merchant.
    Merchant(Merchant),
    /// How suspicious it is.
    Risk(u64),
}

/// What is known of a merchant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Merchant {
    /// Nothing if the third party failed each time.
    pub score: Option<u64>,
    /// How often it was asked.
    pub attempts: u32,
}

/// What the model looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Features {
    /// In cents.
    pub amount: u64,
    pub frauds: u64,
    pub merchant: Merchant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alert {
    pub transaction: u64,
    pub account: u64,
    /// On which day it was raised, by the clock.
    pub day: u64,
    pub features: Features,
    pub risk: u64,
}

/// A transaction, and the answers so far.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Pending {
    transaction: Transaction,
    frauds: Option<u64>,
    merchant: Option<Merchant>,
}

timely_statefun::messages! {
    /// What travels in the application.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Message {
        Count(ToCount),
        Scorer(ToScorer),
        Model(Features),
        Manager(ToManager),
    }
}

pub fn functions() -> Functions<Message> {
    Functions::new()
        .named("fraud")
        .embedded(COUNT, Function::new(count).value(FRAUDS))
        .embedded(SCORER, Function::new(scorer).operations(QUESTIONS_MAX))
        .embedded(MODEL, Function::new(model))
        .embedded(MANAGER, Function::new(manager).value(PENDING))
        .egress(ALERTS)
}

fn count(context: &mut Context<'_, Message>, told: &ToCount) -> FunctionResult {
    let frauds = context.get(FRAUDS).copied().unwrap_or(0);
    match told {
        ToCount::Confirm => {
            context.set(FRAUDS, frauds + 1);
            let this = context.id().clone();
            context.send_after(DAY * COUNTED_DAYS, COUNT, this, ToCount::Expire);
        }
        // An account without frauds takes no memory.
        ToCount::Expire if frauds == 1 => context.clear(FRAUDS),
        ToCount::Expire => {
            let left = frauds.checked_sub(1).ok_or("more frauds were over than there were")?;
            context.set(FRAUDS, left);
        }
        ToCount::Query => context.reply(ToManager::Frauds(frauds))?,
    }
    Ok(())
}

fn scorer(context: &mut Context<'_, Message>, told: &ToScorer) -> FunctionResult {
    match told {
        ToScorer::Query { transaction } => ask(context, *transaction, 1),
        ToScorer::Answered { transaction, attempt, outcome } => {
            let score = match outcome {
                Outcome::Completed(score) => Some(*score),
                // The program was started again meanwhile. Asking costs nothing, so it asks again.
                Outcome::Unknown => return ask(context, *transaction, *attempt),
                Outcome::Failed(_) if *attempt < ATTEMPTS_MAX => {
                    return ask(context, *transaction, attempt + 1);
                }
                Outcome::Failed(_) => None,
            };
            let merchant = Merchant { score, attempts: *attempt };
            context.send(MANAGER, *transaction, ToManager::Merchant(merchant));
            Ok(())
        }
    }
}

/// Asks the third party, whose answer is a message.
fn ask(context: &mut Context<'_, Message>, transaction: u64, attempt: u32) -> FunctionResult {
    let merchant = context.id().as_number().ok_or("merchants have numbers")?;
    let question = service::score(merchant, transaction, attempt);
    context.start(question, move |outcome| ToScorer::Answered { transaction, attempt, outcome });
    Ok(())
}

fn model(context: &mut Context<'_, Message>, features: &Features) -> FunctionResult {
    context.reply(ToManager::Risk(risk(features)))?;
    Ok(())
}

/// From 0 to 100.
pub fn risk(features: &Features) -> u64 {
    let by_amount = (features.amount / 4000).min(25);
    // Nobody knows the merchant: it is taken for one of those that are not too bad.
    let by_merchant = features.merchant.score.unwrap_or(40);
    (10 * features.frauds + by_merchant + by_amount).min(100)
}

fn manager(context: &mut Context<'_, Message>, told: &ToManager) -> FunctionResult {
    match *told {
        ToManager::Judge(transaction) => {
            context.set(PENDING, Pending { transaction, frauds: None, merchant: None });
            context.send(COUNT, transaction.account, ToCount::Query);
            let query = ToScorer::Query { transaction: transaction.number };
            context.send(SCORER, transaction.merchant, query);
            Ok(())
        }
        ToManager::Frauds(frauds) => learn(context, |pending| pending.frauds = Some(frauds)),
        ToManager::Merchant(known) => learn(context, |pending| pending.merchant = Some(known)),
        ToManager::Risk(risk) => decide(context, risk),
    }
}

fn pending(context: &mut Context<'_, Message>) -> Result<Pending, &'static str> {
    context.get(PENDING).copied().ok_or("an answer for a transaction that nobody asked about")
}

/// Notes an answer, and asks the model when all are there, in whatever order they came.
fn learn(context: &mut Context<'_, Message>, note: impl FnOnce(&mut Pending)) -> FunctionResult {
    let mut pending = pending(context)?;
    note(&mut pending);
    context.set(PENDING, pending);
    if let (Some(frauds), Some(merchant)) = (pending.frauds, pending.merchant) {
        let Transaction { account, amount, .. } = pending.transaction;
        context.send(MODEL, account, Features { amount, frauds, merchant });
    }
    Ok(())
}

/// The end of a transaction, of which nothing is kept.
fn decide(context: &mut Context<'_, Message>, risk: u64) -> FunctionResult {
    let Pending { transaction, frauds, merchant } = pending(context)?;
    context.clear(PENDING);
    let (frauds, merchant) = frauds.zip(merchant).ok_or("a risk before all answers")?;
    if risk > RISK_ACCEPTED {
        let features = Features { amount: transaction.amount, frauds, merchant };
        let day = context.now_ms() / DAY.as_millis() as u64;
        let Transaction { number, account, .. } = transaction;
        context.emit(ALERTS, Alert { transaction: number, account, day, features, risk });
    }
    Ok(())
}
