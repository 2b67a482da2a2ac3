//! `GET /catalogue.jsonld`: the catalogue by DCAT-AP 3.0, as JSON-LD. Addresses are relative to the document's own.

use super::about::{About, Bbox};
use concordat_protocol::ids::{AgencyId, DatasetId};
use serde_json::{Value, json};

/// Media type of JSON-LD.
pub(super) const MEDIA_TYPE: &str = "application/ld+json";
const THEME: &str = "http://publications.europa.eu/resource/authority/data-theme/";
const RIGHT: &str = "http://publications.europa.eu/resource/authority/access-right/";

/// A dataset as the catalogue has it.
pub(super) struct Entry<'a> {
    pub id: &'a DatasetId,
    pub access: &'a str,
    pub title: &'a str,
    /// `feed`, `records`, `both`, or empty where that is not known here.
    pub kind: &'a str,
    /// Agreements under which it can be read.
    pub agreements: Vec<&'a str>,
    pub about: Option<&'a About>,
}

fn context() -> Value {
    json!({
        "dcat": "http://www.w3.org/ns/dcat#",
        "dct": "http://purl.org/dc/terms/",
        "foaf": "http://xmlns.com/foaf/0.1/",
        "hydra": "http://www.w3.org/ns/hydra/core#",
        "odrl": "http://www.w3.org/ns/odrl/2/",
        "skos": "http://www.w3.org/2004/02/skos/core#",
        "vcard": "http://www.w3.org/2006/vcard/ns#",
        "xsd": "http://www.w3.org/2001/XMLSchema#",
    })
}

/// An id as one segment of a path.
fn segment(id: &DatasetId) -> String {
    id.as_str().replace(':', "%3A").replace('/', "%2F").replace('@', "%40")
}

fn publisher(chain: &str, agency: &AgencyId) -> Value {
    json!({"@id": format!("urn:concordat:{chain}:agency:{agency}"), "@type": "foaf:Agent", "foaf:name": agency})
}

fn wkt(Bbox([w, s, e, n]): Bbox) -> Value {
    json!({
        "@type": "http://www.opengis.net/ont/geosparql#wktLiteral",
        "@value": format!("POLYGON(({w} {s}, {e} {s}, {e} {n}, {w} {n}, {w} {s}))"),
    })
}

/// The ways to the data: queries and subscriptions of this agency's own broker.
fn distributions(e: &Entry) -> Vec<Value> {
    let ways = [
        ("feed", "Feed", "v1/subscriptions", "text/event-stream"),
        ("records", "Queries", "v1/queries", "application/json"),
    ];
    let has = |kind: &str| e.kind.is_empty() || e.kind == "both" || e.kind == kind;
    ways.into_iter()
        .filter(|(kind, ..)| has(kind))
        .map(|(kind, title, url, media)| {
            let mut out = json!({
                "@id": format!("v1/catalogue/datasets/{}#{kind}", segment(e.id)),
                "@type": "dcat:Distribution",
                "dct:title": title,
                "dcat:accessURL": {"@id": url},
                "dcat:mediaType": {"@id": format!("http://www.iana.org/assignments/media-types/{media}")},
                "dcat:accessService": {"@id": "#api"},
                "dct:conformsTo": {"@id": format!("v1/catalogue/datasets/{}/schema", segment(e.id)), "@type": "dct:Standard"},
            });
            if let Some(licence) = e.about.and_then(|a| a.licence.as_ref()) {
                out["dct:license"] = json!({"@id": licence, "@type": "dct:LicenseDocument"});
            }
            out
        })
        .collect()
}

fn dataset(chain: &str, e: &Entry) -> Value {
    let right = match e.access {
        "public" => "PUBLIC",
        "agreed" => "RESTRICTED",
        _ => "NON_PUBLIC",
    };
    let title = if e.title.is_empty() { e.id.as_str() } else { e.title };
    let description = e.about.map(|a| a.description.as_str()).filter(|d| !d.is_empty()).unwrap_or(title);
    let mut out = json!({
        "@id": format!("urn:concordat:{chain}:{}", e.id),
        "@type": "dcat:Dataset",
        "dct:identifier": e.id,
        "dct:title": title,
        "dct:description": description,
        "dct:publisher": publisher(chain, &e.id.owner()),
        "dct:accessRights": {"@id": format!("{RIGHT}{right}"), "@type": "dct:RightsStatement"},
        "dcat:landingPage": {"@id": format!("v1/catalogue/datasets/{}", segment(e.id)), "@type": "foaf:Document"},
        "dcat:distribution": distributions(e),
    });
    if !e.agreements.is_empty() {
        let policies =
            e.agreements.iter().map(|a| json!({"@id": format!("v1/agreements/{a}"), "@type": "odrl:Agreement"}));
        out["odrl:hasPolicy"] = policies.collect();
    }
    let Some(about) = e.about else { return out };
    if !about.keywords.is_empty() {
        out["dcat:keyword"] = json!(about.keywords);
    }
    if !about.themes.is_empty() {
        out["dcat:theme"] =
            about.themes.iter().map(|t| json!({"@id": format!("{THEME}{t}"), "@type": "skos:Concept"})).collect();
    }
    if let Some(area) = &about.area {
        out["dct:spatial"] = json!({"@type": "dct:Location", "skos:prefLabel": area.name});
        if let Some(bbox) = area.bbox {
            out["dct:spatial"]["dcat:bbox"] = wkt(bbox);
        }
    }
    if let Some(time) = &about.time {
        let at = |t: jiff::Timestamp| json!({"@type": "xsd:dateTime", "@value": t.to_string()});
        out["dct:temporal"] = json!({"@type": "dct:PeriodOfTime", "dcat:startDate": at(time.from)});
        if let Some(until) = time.until {
            out["dct:temporal"]["dcat:endDate"] = at(until);
        }
    }
    if let Some(contact) = &about.contact {
        out["dcat:contactPoint"] = json!({
            "@type": "vcard:Kind", "vcard:fn": contact.name, "vcard:hasEmail": {"@id": format!("mailto:{}", contact.email)},
        });
    }
    out
}

/// The catalogue of an agency's broker; `next` is the address of the next page.
pub(super) fn catalogue(chain: &str, own: &AgencyId, entries: &[Entry], next: Option<String>) -> Value {
    let mut out = json!({
        "@context": context(),
        "@id": format!("urn:concordat:{chain}:catalogue:{own}"),
        "@type": "dcat:Catalog",
        "dct:title": format!("Datasets that {own} offers and can read"),
        "dct:description": format!("Datasets on the ledger {chain} that are public, agreed with {own}, or its own."),
        "dct:publisher": publisher(chain, own),
        "dcat:service": {
            "@id": "#api", "@type": "dcat:DataService", "dct:title": format!("The broker of {own}"),
            "dcat:endpointURL": {"@id": "v1"}, "dcat:endpointDescription": {"@id": "openapi.json"},
        },
        "dcat:dataset": entries.iter().map(|e| dataset(chain, e)).collect::<Vec<_>>(),
    });
    if let Some(next) = next {
        out["hydra:view"] = json!({"@type": "hydra:PartialCollectionView", "hydra:next": {"@id": next}});
    }
    out
}
