//! What modules say of Kinesis. Nothing here speaks to Kinesis.

use std::fmt;

use super::connectors::{ConnectorSpec, Properties, Route};
use super::error::ModuleError;
use super::node::Fields;
use super::tree::Node;
use crate::address::TypeName;

/// `io.statefun.kinesis.v1/ingress`: records of streams, each of which goes to the functions of its stream, at the
/// id that is its partition key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KinesisIngress {
    /// Which ingress it is.
    pub id: TypeName,
    /// Where Kinesis is. Default: where the environment says.
    pub region: AwsRegion,
    /// As whom to go there. Default: as whom the environment says.
    pub credentials: AwsCredentials,
    /// Where to begin at first. Default: at the end.
    pub startup_position: KinesisStartupPosition,
    /// At least one stream.
    pub streams: Vec<Route>,
    /// What else the client is told: `clientConfigProperties`.
    pub properties: Properties,
}

/// `startupPosition` of a Kinesis ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KinesisStartupPosition {
    /// `earliest`: at the beginning.
    Earliest,
    /// `latest`: at the end.
    #[default]
    Latest,
    /// `date`: with the first record that is not older.
    Date {
        /// Milliseconds since the year 1970 began in UTC.
        ms: i64,
    },
}

/// `awsRegion`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwsRegion {
    /// `default`: what the environment says.
    #[default]
    Default,
    /// `specific`.
    Specific {
        /// The region, such as `us-west-2`.
        id: String,
    },
    /// `custom-endpoint`: something that speaks like Kinesis.
    CustomEndpoint {
        /// Where it is; a URL that begins with `https://`.
        endpoint: String,
        /// The region that it says it is.
        id: String,
    },
}

/// `awsCredentials`. The secret is not shown.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwsCredentials {
    /// `default`: what the environment says.
    #[default]
    Default,
    /// `basic`.
    Basic {
        /// Who it is.
        access_key_id: String,
        /// What shows it.
        secret_access_key: String,
    },
    /// `profile`: what a file of profiles says.
    Profile {
        /// Which of the profiles.
        name: String,
        /// The file, if it is not the usual one.
        path: Option<String>,
    },
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AwsCredentials::Default => f.write_str("Default"),
            AwsCredentials::Basic { access_key_id, .. } => {
                let mut debug = f.debug_struct("Basic");
                debug.field("access_key_id", access_key_id).finish_non_exhaustive()
            }
            AwsCredentials::Profile { name, path } => {
                f.debug_struct("Profile").field("name", name).field("path", path).finish()
            }
        }
    }
}

impl ConnectorSpec for KinesisIngress {
    const KIND: &'static str = "io.statefun.kinesis.v1/ingress";
    const FIELDS: &'static [&'static str] = &[
        "id",
        "awsRegion",
        "awsCredentials",
        "startupPosition",
        "streams",
        "clientConfigProperties",
    ];

    fn read(fields: &Fields<'_>) -> Result<Self, ModuleError> {
        let startup_position = fields.get("startupPosition").map(startup_position).transpose()?;
        Ok(KinesisIngress {
            id: fields.require("id")?.type_name()?,
            region: region(fields)?,
            credentials: credentials(fields)?,
            startup_position: startup_position.unwrap_or_default(),
            streams: Route::all(fields.require("streams")?, "stream")?,
            properties: Properties::within(fields.get("clientConfigProperties"))?,
        })
    }

    fn id(&self) -> Option<&TypeName> {
        Some(&self.id)
    }
}

fn startup_position(node: &Node) -> Result<KinesisStartupPosition, ModuleError> {
    let (of_type, fields) =
        node.variant(&[("latest", &[]), ("earliest", &[]), ("date", &["date"])])?;
    Ok(match of_type {
        "earliest" => KinesisStartupPosition::Earliest,
        "date" => KinesisStartupPosition::Date { ms: fields.require("date")?.date_ms()? },
        _ => KinesisStartupPosition::Latest,
    })
}

fn region(fields: &Fields<'_>) -> Result<AwsRegion, ModuleError> {
    let Some(node) = fields.get("awsRegion") else { return Ok(AwsRegion::Default) };
    let variants: [(_, &[_]); 3] =
        [("default", &[]), ("specific", &["id"]), ("custom-endpoint", &["endpoint", "id"])];
    let (of_type, fields) = node.variant(&variants)?;
    let text = |field| fields.require(field)?.some_text().map(str::to_owned);
    Ok(match of_type {
        "specific" => AwsRegion::Specific { id: text("id")? },
        "custom-endpoint" => {
            let endpoint = fields.require("endpoint")?;
            if !endpoint.some_text()?.starts_with("https://") {
                return Err(endpoint.error("an endpoint is a URL that begins with \"https://\""));
            }
            AwsRegion::CustomEndpoint { endpoint: text("endpoint")?, id: text("id")? }
        }
        _ => AwsRegion::Default,
    })
}

fn credentials(fields: &Fields<'_>) -> Result<AwsCredentials, ModuleError> {
    let Some(node) = fields.get("awsCredentials") else { return Ok(AwsCredentials::Default) };
    let (of_type, fields) = node.variant(&[
        ("default", &[]),
        ("basic", &["accessKeyId", "secretAccessKey"]),
        ("profile", &["profileName", "profilePath"]),
    ])?;
    let text = |field| fields.require(field)?.some_text().map(str::to_owned);
    Ok(match of_type {
        "basic" => AwsCredentials::Basic {
            access_key_id: text("accessKeyId")?,
            secret_access_key: text("secretAccessKey")?,
        },
        "profile" => AwsCredentials::Profile {
            name: text("profileName")?,
            path: fields.get("profilePath").map(|_| text("profilePath")).transpose()?,
        },
        _ => AwsCredentials::Default,
    })
}

/// `io.statefun.kinesis.v1/egress`: records that say which stream they go to; each is there at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KinesisEgress {
    /// Which egress it is.
    pub id: TypeName,
    /// Where Kinesis is. Default: where the environment says.
    pub region: AwsRegion,
    /// As whom to go there. Default: as whom the environment says.
    pub credentials: AwsCredentials,
    /// How many records may wait to be written; at least 1. Default: 1,000.
    pub records_max: u32,
    /// What else the client is told: `clientConfigProperties`.
    pub properties: Properties,
}

impl ConnectorSpec for KinesisEgress {
    const KIND: &'static str = "io.statefun.kinesis.v1/egress";
    const FIELDS: &'static [&'static str] =
        &["id", "awsRegion", "awsCredentials", "maxOutstandingRecords", "clientConfigProperties"];

    fn read(fields: &Fields<'_>) -> Result<Self, ModuleError> {
        let records_max = fields.get("maxOutstandingRecords");
        let records_max = records_max.map_or(Ok(1000), |node| node.number(1..=i32::MAX as u64))?;
        Ok(KinesisEgress {
            id: fields.require("id")?.type_name()?,
            region: region(fields)?,
            credentials: credentials(fields)?,
            records_max: records_max as u32,
            properties: Properties::within(fields.get("clientConfigProperties"))?,
        })
    }

    fn id(&self) -> Option<&TypeName> {
        Some(&self.id)
    }
}
