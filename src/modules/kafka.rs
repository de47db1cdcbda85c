//! What modules say of Kafka. Nothing here speaks to Kafka.

use std::collections::BTreeMap;
use std::time::Duration;

use super::connectors::{ConnectorSpec, Properties, Route};
use super::error::{Mistake, ModuleError};
use super::node::Fields;
use super::tree::Node;
use crate::address::TypeName;

const BOOTSTRAP_SERVERS: &str = "bootstrap.servers";
const GROUP_ID: &str = "group.id";

/// `io.statefun.kafka.v1/ingress`: records of topics, each of which goes to the functions of its topic, at the id
/// that is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaIngress {
    /// Which ingress it is.
    pub id: TypeName,
    /// Where Kafka is: `address`, or else the property `bootstrap.servers`.
    pub address: String,
    /// Under which name positions are stored: `consumerGroupId`, or else the property `group.id`.
    pub consumer_group_id: String,
    /// At least one topic.
    pub topics: Vec<Route>,
    /// Where to begin if the position that was asked for is not there. Default: at the end.
    pub auto_offset_reset: AutoOffsetReset,
    /// Where to begin at first. Default: at the end.
    pub startup_position: KafkaStartupPosition,
    /// What else the consumer is told.
    pub properties: Properties,
}

/// `autoOffsetResetPosition`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum AutoOffsetReset {
    /// At the beginning.
    Earliest,
    /// At the end.
    #[default]
    Latest,
}

/// `startupPosition` of a Kafka ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KafkaStartupPosition {
    /// `group-offsets`: where the consumer group has been.
    GroupOffsets,
    /// `earliest`: at the beginning.
    Earliest,
    /// `latest`: at the end.
    #[default]
    Latest,
    /// `specific-offsets`: at an offset in each partition of a topic, of which there is at least one.
    SpecificOffsets(BTreeMap<(String, u32), u64>),
    /// `date`: with the first record that is not older.
    Date {
        /// Milliseconds since the year 1970 began in UTC.
        ms: i64,
    },
}

impl KafkaIngress {
    /// All that the consumer is told: the properties, with the address, the group, and where to begin if a position is
    /// not there, whatever the properties say of these.
    pub fn consumer_properties(&self) -> Properties {
        let reset = match self.auto_offset_reset {
            AutoOffsetReset::Earliest => "earliest",
            AutoOffsetReset::Latest => "latest",
        };
        let properties = self.properties.clone().with(BOOTSTRAP_SERVERS, &self.address);
        properties.with(GROUP_ID, &self.consumer_group_id).with("auto.offset.reset", reset)
    }
}

impl ConnectorSpec for KafkaIngress {
    const KIND: &'static str = "io.statefun.kafka.v1/ingress";
    const FIELDS: &'static [&'static str] = &[
        "id",
        "address",
        "consumerGroupId",
        "topics",
        "autoOffsetResetPosition",
        "startupPosition",
        "properties",
    ];

    fn read(fields: &Fields<'_>) -> Result<Self, ModuleError> {
        let id = fields.require("id")?.type_name()?;
        let properties = Properties::within(fields.get("properties"))?;
        let or_property = |field, property| match (fields.get(field), properties.get(property)) {
            (None, Some(value)) if !value.is_empty() => Ok(value.to_owned()),
            _ => fields.require(field)?.some_text().map(str::to_owned),
        };
        let address = or_property("address", BOOTSTRAP_SERVERS)?;
        let consumer_group_id = or_property("consumerGroupId", GROUP_ID)?;
        let auto_offset_reset = match fields.get("autoOffsetResetPosition") {
            None => AutoOffsetReset::default(),
            Some(node) => match node.one_of(&["latest", "earliest"])? {
                "earliest" => AutoOffsetReset::Earliest,
                _ => AutoOffsetReset::Latest,
            },
        };
        let startup_position = fields.get("startupPosition").map(startup_position).transpose()?;
        Ok(KafkaIngress {
            id,
            address,
            consumer_group_id,
            topics: Route::all(fields.require("topics")?, "topic")?,
            auto_offset_reset,
            startup_position: startup_position.unwrap_or_default(),
            properties,
        })
    }

    fn id(&self) -> Option<&TypeName> {
        Some(&self.id)
    }
}

fn startup_position(node: &Node) -> Result<KafkaStartupPosition, ModuleError> {
    let (of_type, fields) = node.variant(&[
        ("latest", &[]),
        ("earliest", &[]),
        ("group-offsets", &[]),
        ("specific-offsets", &["offsets"]),
        ("date", &["date"]),
    ])?;
    Ok(match of_type {
        "earliest" => KafkaStartupPosition::Earliest,
        "group-offsets" => KafkaStartupPosition::GroupOffsets,
        "specific-offsets" => {
            let offsets = fields.require("offsets")?;
            offsets.some_list()?;
            let pairs = offsets.pairs()?.into_iter().map(|(key, node)| {
                let partition = partition(key).ok_or_else(|| {
                    node.error(format!("\"{key}\" is not of the form \"topic/partition\""))
                })?;
                Ok((partition, node.number(0..=i64::MAX as u64)?))
            });
            KafkaStartupPosition::SpecificOffsets(pairs.collect::<Result<_, ModuleError>>()?)
        }
        "date" => KafkaStartupPosition::Date { ms: fields.require("date")?.date_ms()? },
        _ => KafkaStartupPosition::Latest,
    })
}

/// A topic and the number of one of its partitions, with a `/` between.
fn partition(text: &str) -> Option<(String, u32)> {
    let (topic, partition) = text.rsplit_once('/')?;
    let is_number = partition.bytes().all(|byte| byte.is_ascii_digit());
    let partition: i32 = is_number.then(|| partition.parse().ok()).flatten()?;
    (!topic.is_empty()).then(|| (topic.to_owned(), partition as u32))
}

/// `io.statefun.kafka.v1/egress`: records that say which topic they go to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaEgress {
    /// Which egress it is.
    pub id: TypeName,
    /// Where Kafka is.
    pub address: String,
    /// How often each record is there. Default: at least once.
    pub delivery: KafkaDelivery,
    /// What else the producer is told.
    pub properties: Properties,
}

/// `deliverySemantic`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KafkaDelivery {
    /// `none`: whatever comes of it.
    None,
    /// `at-least-once`.
    #[default]
    AtLeastOnce,
    /// `exactly-once`, in transactions.
    ExactlyOnce {
        /// After how long Kafka gives up a transaction: `transactionTimeoutMillis`, or else `transactionTimeout`.
        /// More than nothing.
        transaction_timeout: Duration,
    },
}

impl KafkaEgress {
    /// All that the producer is told: the properties, with the address and the timeout of transactions, whatever the
    /// properties say of these.
    pub fn producer_properties(&self) -> Properties {
        let properties = self.properties.clone().with(BOOTSTRAP_SERVERS, &self.address);
        match self.delivery {
            KafkaDelivery::ExactlyOnce { transaction_timeout } => {
                let ms = transaction_timeout.as_millis().to_string();
                properties.with("transaction.timeout.ms", &ms)
            }
            _ => properties,
        }
    }
}

impl ConnectorSpec for KafkaEgress {
    const KIND: &'static str = "io.statefun.kafka.v1/egress";
    const FIELDS: &'static [&'static str] = &["id", "address", "deliverySemantic", "properties"];

    fn read(fields: &Fields<'_>) -> Result<Self, ModuleError> {
        let delivery = fields.get("deliverySemantic").map(delivery).transpose()?;
        Ok(KafkaEgress {
            id: fields.require("id")?.type_name()?,
            address: fields.require("address")?.some_text()?.to_owned(),
            delivery: delivery.unwrap_or_default(),
            properties: Properties::within(fields.get("properties"))?,
        })
    }

    fn id(&self) -> Option<&TypeName> {
        Some(&self.id)
    }
}

fn delivery(node: &Node) -> Result<KafkaDelivery, ModuleError> {
    const TIMEOUT: &str = "transactionTimeout";
    const TIMEOUT_MS: &str = "transactionTimeoutMillis";
    let variants: [(_, &[_]); 3] =
        [("at-least-once", &[]), ("exactly-once", &[TIMEOUT, TIMEOUT_MS]), ("none", &[])];
    let (of_type, fields) = node.variant(&variants)?;
    Ok(match of_type {
        "none" => KafkaDelivery::None,
        "exactly-once" => {
            let transaction_timeout = match fields.get(TIMEOUT_MS) {
                // A number, whatever documentation says.
                Some(node) => Duration::from_millis(node.number(1..=i32::MAX as u64)?),
                None => {
                    let node = fields.require(TIMEOUT)?;
                    let timeout = node.duration()?;
                    if timeout < Duration::from_millis(1) {
                        let found = node.as_text("a duration")?.written.to_string();
                        let (what, why) = (node.what(), "it is less than a millisecond");
                        return Err(node.mistake(Mistake::InvalidDuration { what, found, why }));
                    }
                    timeout
                }
            };
            KafkaDelivery::ExactlyOnce { transaction_timeout }
        }
        _ => KafkaDelivery::AtLeastOnce,
    })
}
