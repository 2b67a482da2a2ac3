//! What the demo's city is made of: documents, schemas, mappings and real data, carried in the program.

/// A file that goes into an agency's folder.
pub struct Asset {
    /// Which agency gets it.
    pub agency: &'static str,
    /// Path in the agency's folder.
    pub path: &'static str,
    /// Content.
    pub bytes: &'static [u8],
}

macro_rules! assets {
    ($($agency:literal $path:literal = $file:literal),* $(,)?) => {
        /// All files.
        pub const ASSETS: &[Asset] = &[$(Asset { agency: $agency, path: $path, bytes: include_bytes!(concat!("../../demo/", $file)) }),*];
    };
}

assets! {
    "police" "datasets/stops.yaml" = "datasets/police-stops.yaml",
    "police" "schemas/stops@1.json" = "schemas/stops@1.json",
    "police" "catalogue/stops.yaml" = "catalogue/police-stops.yaml",
    "police" "adapters/stops.yaml" = "adapters/stops.yaml",
    "police" "data/police_stops_2017.csv.gz" = "data/police_stops_2017.csv.gz",
    "grid" "datasets/load.yaml" = "datasets/grid-load.yaml",
    "grid" "schemas/load@1.json" = "schemas/load@1.json",
    "grid" "catalogue/load.yaml" = "catalogue/grid-load.yaml",
    "grid" "adapters/load.yaml" = "adapters/load.yaml",
    "grid" "data/grid_load_profiles_q1.csv.gz" = "data/grid_load_profiles_q1.csv.gz",
    "transport" "datasets/i94.yaml" = "datasets/transport-i94.yaml",
    "transport" "schemas/i94@1.json" = "schemas/i94@1.json",
    "transport" "catalogue/i94.yaml" = "catalogue/transport-i94.yaml",
    "transport" "adapters/i94.yaml" = "adapters/i94.yaml",
    "transport" "data/traffic_volume_hourly.csv.gz" = "data/traffic_volume_hourly.csv.gz",
    "court" "datasets/register.yaml" = "datasets/court-register.yaml",
    "court" "schemas/register@1.json" = "schemas/register@1.json",
    "court" "catalogue/register.yaml" = "catalogue/court-register.yaml",
    "court" "adapters/register.yaml" = "adapters/register.yaml",
    "court" "catalogue/stops.yaml" = "catalogue/police-stops.yaml",
    "court" "catalogue/i94.yaml" = "catalogue/transport-i94.yaml",
    "court" "data/courts.csv.gz" = "data/courts.csv.gz",
}

/// An agreement of the demo.
pub struct DemoAgreement {
    /// File name.
    pub file: &'static str,
    /// The provider.
    pub provider: &'static str,
    /// The consumer, none for public data.
    pub consumer: Option<&'static str>,
    /// The document with placeholders.
    pub template: &'static str,
}

/// The agreements of the demo.
pub const AGREEMENTS: &[DemoAgreement] = &[
    DemoAgreement {
        file: "AGR-2026-0142.yaml",
        provider: "police",
        consumer: Some("court"),
        template: include_str!("../../demo/agreements/AGR-2026-0142.yaml"),
    },
    DemoAgreement {
        file: "AGR-2026-0143.yaml",
        provider: "grid",
        consumer: Some("transport"),
        template: include_str!("../../demo/agreements/AGR-2026-0143.yaml"),
    },
    DemoAgreement {
        file: "AGR-2026-0144.yaml",
        provider: "transport",
        consumer: None,
        template: include_str!("../../demo/agreements/AGR-2026-0144.yaml"),
    },
    DemoAgreement {
        file: "AGR-2026-0145.yaml",
        provider: "court",
        consumer: None,
        template: include_str!("../../demo/agreements/AGR-2026-0145.yaml"),
    },
];

/// Agencies of the demo, in the order of their validators; sorted by name for genesis.
pub const AGENCIES: [&str; 4] = ["court", "grid", "police", "transport"];

/// Datasets that are loaded into holdings: agency, adapter.
pub const HELD: [(&str, &str); 3] = [("police", "stops"), ("transport", "i94"), ("court", "register")];
