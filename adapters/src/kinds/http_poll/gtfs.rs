//! GTFS-Realtime 2.0: a feed of protobuf as flat JSON objects, one a row.

#[path = "gtfs_messages.rs"]
mod messages;

use jiff::Timestamp;
use messages::*;
use prost::Message;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Which entities of a feed become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entity {
    /// A row a vehicle.
    Vehicle,
    /// A row a stop of a trip.
    TripUpdate,
    /// A row an alert and what it is about.
    Alert,
}

/// A flat row.
#[derive(Default, Clone)]
struct Flat(Map<String, Value>);

impl Flat {
    fn put(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
    }

    /// A word of an enumeration, or its number where it is newer than this program.
    fn word(&mut self, name: &str, words: &[&str], value: Option<i32>) {
        let word = value.map(|n| {
            let known = usize::try_from(n).ok().and_then(|n| words.get(n)).filter(|w| !w.is_empty());
            known.map_or_else(|| n.to_string(), |w| (*w).to_owned())
        });
        self.put(name, word);
    }

    /// An instant from seconds; 0 means none.
    fn instant(&mut self, name: &str, seconds: Option<i64>) {
        let stamp = seconds.filter(|s| *s != 0).and_then(|s| Timestamp::from_second(s).ok());
        self.put(name, stamp.map(|s| s.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    }

    /// The shortest digits that mean the same number.
    fn float(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        self.put(name, value.map(|v| v.to_string()).filter(|v| v.parse::<f64>().is_ok_and(f64::is_finite)));
    }

    fn trip(&mut self, trip: Option<&Trip>) {
        let Some(trip) = trip else { return };
        self.put("trip_id", trip.trip_id.clone());
        self.put("route_id", trip.route_id.clone());
        self.put("direction_id", trip.direction_id);
        self.put("start_date", trip.start_date.clone());
        self.put("start_time", trip.start_time.clone());
        self.word("trip_relationship", TRIP, trip.relationship);
    }

    fn vehicle(&mut self, vehicle: Option<&VehicleName>) {
        let Some(vehicle) = vehicle else { return };
        self.put("vehicle_id", vehicle.id.clone());
        self.put("vehicle_label", vehicle.label.clone());
        self.put("license_plate", vehicle.license_plate.clone());
    }

    fn event(&mut self, name: &str, event: Option<&StopEvent>) {
        let Some(event) = event else { return };
        self.put(&format!("{name}_delay"), event.delay);
        self.instant(&format!("{name}_time"), event.time);
        self.put(&format!("{name}_uncertainty"), event.uncertainty);
    }

    fn text(&mut self, name: &str, text: Option<&Translated>) {
        let first = text.and_then(|t| {
            let english = |t: &&Translation| t.language.as_deref().is_none_or(|l| l.starts_with("en"));
            t.translations.iter().find(english).or_else(|| t.translations.first())
        });
        self.put(name, first.map(|t| t.text.clone()));
    }
}

fn seconds(value: Option<u64>) -> Option<i64> {
    value.and_then(|s| i64::try_from(s).ok())
}

/// The rows of a feed. The error is one sentence that repeats nothing of it.
pub fn rows(body: &[u8], entity: Entity) -> Result<Vec<Map<String, Value>>, String> {
    let feed = Feed::decode(body).map_err(|_| "the answer is no GTFS-Realtime feed".to_owned())?;
    if feed.header.incrementality == Some(1) {
        return Err("the feed is differential; only whole feeds are read".to_owned());
    }
    let mut rows = Vec::new();
    for found in feed.entity.iter().filter(|e| e.is_deleted != Some(true)) {
        let mut flat = Flat::default();
        flat.put("entity_id", Some(found.id.clone()));
        flat.instant("feed_timestamp", seconds(feed.header.timestamp));
        match entity {
            Entity::Vehicle => rows.extend(found.vehicle.as_ref().map(|v| vehicle(flat, v))),
            Entity::TripUpdate => rows.extend(found.trip_update.as_ref().map(|t| trip(&flat, t)).unwrap_or_default()),
            Entity::Alert => rows.extend(found.alert.as_ref().map(|a| alert(flat, a)).unwrap_or_default()),
        }
    }
    Ok(rows.into_iter().map(|flat| flat.0).collect())
}

fn vehicle(mut flat: Flat, vehicle: &VehiclePosition) -> Flat {
    flat.instant("timestamp", seconds(vehicle.timestamp));
    flat.trip(vehicle.trip.as_ref());
    flat.vehicle(vehicle.vehicle.as_ref());
    if let Some(position) = &vehicle.position {
        flat.float("latitude", Some(position.latitude));
        flat.float("longitude", Some(position.longitude));
        flat.float("bearing", position.bearing);
        flat.float("odometer", position.odometer);
        flat.float("speed", position.speed);
    }
    flat.put("stop_id", vehicle.stop_id.clone());
    flat.put("stop_sequence", vehicle.stop_sequence);
    flat.word("status", STATUS, vehicle.status);
    flat.word("congestion", CONGESTION, vehicle.congestion);
    flat.word("occupancy", OCCUPANCY, vehicle.occupancy);
    flat.put("occupancy_percentage", vehicle.occupancy_percentage);
    flat
}

fn trip(flat: &Flat, update: &TripUpdate) -> Vec<Flat> {
    let mut flat = flat.clone();
    flat.instant("timestamp", seconds(update.timestamp));
    flat.trip(update.trip.as_ref());
    flat.vehicle(update.vehicle.as_ref());
    flat.put("delay", update.delay);
    if update.stops.is_empty() {
        return vec![flat];
    }
    let row = |stop: &StopTime| {
        let mut flat = flat.clone();
        flat.put("stop_sequence", stop.stop_sequence);
        flat.put("stop_id", stop.stop_id.clone());
        flat.event("arrival", stop.arrival.as_ref());
        flat.event("departure", stop.departure.as_ref());
        flat.word("stop_relationship", STOP, stop.relationship);
        flat
    };
    update.stops.iter().map(row).collect()
}

fn alert(mut flat: Flat, alert: &AlertBody) -> Vec<Flat> {
    flat.instant("active_from", alert.active.iter().filter_map(|r| seconds(r.start)).min());
    flat.instant("active_until", alert.active.iter().filter_map(|r| seconds(r.end)).max());
    flat.word("cause", CAUSE, alert.cause);
    flat.word("effect", EFFECT, alert.effect);
    flat.word("severity", SEVERITY, alert.severity);
    flat.text("header", alert.header.as_ref());
    flat.text("description", alert.description.as_ref());
    flat.text("url", alert.url.as_ref());
    if alert.about.is_empty() {
        return vec![flat];
    }
    let row = |about: &Selector| {
        let mut flat = flat.clone();
        flat.trip(about.trip.as_ref());
        flat.put("agency_id", about.agency_id.clone());
        if about.route_id.is_some() {
            flat.put("route_id", about.route_id.clone());
        }
        flat.put("route_type", about.route_type);
        flat.put("stop_id", about.stop_id.clone());
        if about.direction_id.is_some() {
            flat.put("direction_id", about.direction_id);
        }
        flat
    };
    alert.about.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// Field by field, as the standard's own encoder writes it.
    fn field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
        out.extend([tag << 3 | 2, u8::try_from(bytes.len()).unwrap()]);
        out.extend_from_slice(bytes);
    }

    fn varint(out: &mut Vec<u8>, tag: u8, mut value: u64) {
        out.push(tag << 3);
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn feed(entity: &[u8]) -> Vec<u8> {
        let (mut header, mut out) = (vec![], vec![]);
        field(&mut header, 1, b"2.0");
        varint(&mut header, 3, 1_700_000_000);
        field(&mut out, 1, &header);
        field(&mut out, 2, entity);
        out
    }

    #[test]
    fn a_vehicle_is_one_flat_row() {
        let (mut trip, mut position, mut name, mut body, mut entity) = (vec![], vec![], vec![], vec![], vec![]);
        field(&mut trip, 1, b"T1");
        field(&mut trip, 5, b"R9");
        for (tag, value) in [(1_u8, 41.8781_f32), (2, -87.6298), (5, 9.5)] {
            position.push(tag << 3 | 5);
            position.extend(value.to_le_bytes());
        }
        field(&mut name, 1, b"bus-7");
        field(&mut body, 1, &trip);
        field(&mut body, 2, &position);
        varint(&mut body, 4, 1);
        varint(&mut body, 5, 1_700_000_042);
        field(&mut body, 8, &name);
        varint(&mut body, 9, 99);
        field(&mut entity, 1, b"e1");
        field(&mut entity, 4, &body);
        // A field of a later version of the standard is passed over.
        field(&mut entity, 9, b"later");
        let rows = rows(&feed(&entity), Entity::Vehicle).unwrap();
        let want = json!({"entity_id": "e1", "feed_timestamp": "2023-11-14T22:13:20Z", "timestamp": "2023-11-14T22:14:02Z",
            "trip_id": "T1", "route_id": "R9", "vehicle_id": "bus-7", "latitude": "41.8781", "longitude": "-87.6298",
            "speed": "9.5", "status": "STOPPED_AT", "occupancy": "99"});
        assert_eq!(Value::Object(rows[0].clone()), want);
        assert_eq!(super::rows(&feed(&entity), Entity::Alert).unwrap().len(), 0);
    }

    #[test]
    fn a_trip_is_a_row_a_stop_and_an_alert_a_row_a_selector() {
        let stop = |n: u32| StopTime {
            stop_sequence: Some(n),
            stop_id: Some(format!("S{n}")),
            arrival: Some(StopEvent { delay: Some(-30), time: Some(1_700_000_100), uncertainty: None }),
            relationship: Some(1),
            ..StopTime::default()
        };
        let about = |stop: &str| Selector { stop_id: Some(stop.into()), ..Selector::default() };
        let text = |t: &str, l: &str| Translation { text: t.into(), language: Some(l.into()) };
        let feed = Feed {
            header: Header { version: "2.0".into(), incrementality: None, timestamp: Some(1_700_000_000) },
            entity: vec![
                FeedEntity {
                    id: "t".into(),
                    trip_update: Some(TripUpdate {
                        trip: Some(Trip { trip_id: Some("T1".into()), ..Trip::default() }),
                        stops: vec![stop(1), stop(2)],
                        ..TripUpdate::default()
                    }),
                    alert: Some(AlertBody {
                        about: vec![about("A"), about("B")],
                        effect: Some(4),
                        header: Some(Translated { translations: vec![text("Umleitung", "de"), text("Detour", "en")] }),
                        ..AlertBody::default()
                    }),
                    ..FeedEntity::default()
                },
                FeedEntity { id: "gone".into(), is_deleted: Some(true), ..FeedEntity::default() },
            ],
        };
        let body = feed.encode_to_vec();
        let trips = rows(&body, Entity::TripUpdate).unwrap();
        assert_eq!(trips.len(), 2);
        let want = json!({"entity_id": "t", "feed_timestamp": "2023-11-14T22:13:20Z", "trip_id": "T1", "stop_sequence": 2,
            "stop_id": "S2", "arrival_delay": -30, "arrival_time": "2023-11-14T22:15:00Z", "stop_relationship": "SKIPPED"});
        assert_eq!(Value::Object(trips[1].clone()), want);
        let alerts = rows(&body, Entity::Alert).unwrap();
        let stops: Vec<&Value> = alerts.iter().map(|a| &a["stop_id"]).collect();
        assert_eq!(
            (stops, &alerts[0]["effect"], &alerts[0]["header"]),
            (vec![&json!("A"), &json!("B")], &json!("DETOUR"), &json!("Detour"))
        );
    }

    #[test]
    fn what_is_no_feed_is_refused() {
        assert!(rows(b"<html>", Entity::Vehicle).unwrap_err().contains("no GTFS-Realtime"));
        let feed =
            Feed { header: Header { version: "2.0".into(), incrementality: Some(1), timestamp: None }, entity: vec![] };
        assert!(rows(&feed.encode_to_vec(), Entity::Vehicle).unwrap_err().contains("differential"));
    }
}
