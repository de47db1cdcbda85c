//! What customers do from hour to hour, and what is delivered. It is the same each time.

/// All that is sold, but for the [last thing](LATEST).
pub const ITEMS: [&str; 16] = [
    "apples", "beans", "bread", "butter", "cheese", "coffee", "eggs", "flour", "honey", "milk",
    "noodles", "oil", "rice", "salt", "sugar", "tea",
];
/// What everybody wants in the last hour.
pub const LATEST: &str = "strawberries";
/// How many pieces of it there are, which is less than there are customers.
pub const LATEST_PIECES: i64 = 25;
pub const CUSTOMERS: u64 = 60;

const HOURS: u64 = 48;
const HOURS_BETWEEN_DELIVERIES: u64 = 12;

/// One hour. What is in one list can happen in any order.
#[derive(Clone, Debug, Default)]
pub struct Hour {
    /// Items and pieces.
    pub delivered: Vec<(&'static str, i64)>,
    /// Customers, items and pieces. No customer, and but for the last hour no item, is there twice.
    pub added: Vec<(u64, &'static str, i64)>,
    pub cleared: Vec<u64>,
    pub paid: Vec<u64>,
}

/// Numbers that depend on nothing but a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

/// All hours. In the last, everybody wants the latest thing, and who gets it is not certain.
pub fn hours() -> Vec<Hour> {
    let mut random = Random(1);
    let mut hours: Vec<Hour> = (0..HOURS).map(|number| hour(number, &mut random)).collect();
    let rush = (0..CUSTOMERS).map(|customer| (customer, LATEST, 1)).collect();
    let delivered = vec![(LATEST, LATEST_PIECES)];
    hours.push(Hour { delivered, added: rush, ..Hour::default() });
    hours
}

fn hour(number: u64, random: &mut Random) -> Hour {
    let mut hour = Hour::default();
    if number.is_multiple_of(HOURS_BETWEEN_DELIVERIES) {
        hour.delivered = ITEMS.map(|item| (item, 20 + random.below(20) as i64)).to_vec();
    }
    // Each item meets another customer.
    let mut customers: Vec<u64> = (0..CUSTOMERS).collect();
    for item in ITEMS {
        let customer = customers.swap_remove(random.below(customers.len() as u64) as usize);
        hour.added.push((customer, item, 1 + random.below(5) as i64));
    }
    for customer in 0..CUSTOMERS {
        match random.below(20) {
            0 => hour.cleared.push(customer),
            1..3 => hour.paid.push(customer),
            _ => {}
        }
    }
    hour
}
