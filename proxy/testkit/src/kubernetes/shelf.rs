//! What the played API server keeps: objects, one count of all changes, and the recent changes for those who watch.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::kinds::{Resource, known};

/// Where an object is: the group and plural of its kind, its namespace (empty: none), its name.
pub(super) type Place = ((String, String), String, String);

/// Everything that is kept.
pub(super) struct Shelf {
    pub(super) resources: Vec<Resource>,
    objects: BTreeMap<Place, Value>,
    count: u64,
    changes: VecDeque<Change>,
    /// Changes up to this count are forgotten.
    pub(super) forgotten: u64,
    uids: u64,
}

/// One change.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) count: u64,
    pub(super) place: Place,
    /// What was there before, if anything was.
    pub(super) before: Option<Value>,
    /// What is there since; for a deletion the last of it.
    pub(super) object: Value,
    pub(super) deleted: bool,
}

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status, where that is a part of its own.
    Whole,
    /// The status alone.
    Status,
}

/// A refusal: status code, reason, message.
pub(super) type Refused = (u16, &'static str, String);

const KEPT: usize = 10_000;
/// As of a cluster that has been there for a while.
const FIRST: u64 = 1_000;

impl Default for Shelf {
    fn default() -> Self {
        let (objects, changes) = (BTreeMap::new(), VecDeque::new());
        Self { resources: known(), objects, count: FIRST, changes, forgotten: FIRST, uids: 0 }
    }
}

impl Shelf {
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn get(&self, place: &Place) -> Option<&Value> {
        self.objects.get(place)
    }

    /// The objects of a kind, in the order of their names; of one namespace, where one is said.
    pub(super) fn of_kind<'a>(
        &'a self,
        id: &'a (String, String),
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Place, &'a Value)> {
        let within = move |place: &Place| namespace.is_none_or(|namespace| place.1 == namespace);
        self.objects.iter().filter(move |(place, _)| place.0 == *id && within(place))
    }

    /// The changes after a count, of one kind.
    pub(super) fn after(&self, count: u64, id: &(String, String)) -> Vec<Change> {
        self.changes.iter().filter(|c| c.count > count && c.place.0 == *id).cloned().collect()
    }

    /// Forgets all changes until now, as a server does after a while.
    pub(super) fn compact(&mut self) {
        self.changes.clear();
        self.forgotten = self.count;
    }

    pub(super) fn create(
        &mut self,
        place: Place,
        mut object: Value,
        by: &str,
        dry: bool,
    ) -> Result<Value, Refused> {
        if self.objects.contains_key(&place) {
            return Err((409, "AlreadyExists", format!("{} {:?} already exists", place.0.1, place.2)));
        }
        self.uids += 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = format!("00000000-0000-0000-0000-{:012}", self.uids).into();
        metadata["creationTimestamp"] = now().into();
        metadata["generation"] = 1.into();
        metadata["managedFields"] = json!([{ "manager": by, "operation": "Update", "time": now() }]);
        if self.resource(&place).is_some_and(|r| r.has_status) {
            without(&mut object, "status");
        }
        Ok(self.put(place, None, object, dry))
    }

    /// Writes one part of what is there.
    pub(super) fn update(
        &mut self,
        place: &Place,
        mut object: Value,
        part: Part,
        by: &str,
        dry: bool,
    ) -> Result<Value, Refused> {
        let Some(before) = self.objects.get(place).cloned() else { return Err(not_found(place)) };
        let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !version.is_empty() && before["metadata"]["resourceVersion"] != version {
            let told = format!(
                "Operation cannot be fulfilled on {} {:?}: the object has been modified; please apply your changes to \
                 the latest version and try again",
                place.0.1, place.2
            );
            return Err((409, "Conflict", told));
        }
        if part == Part::Status {
            let status = object["status"].take();
            object = before.clone();
            object["status"] = status;
        } else if self.resource(place).is_some_and(|r| r.has_status) {
            match before.get("status") {
                Some(status) => object["status"] = status.clone(),
                None => without(&mut object, "status"),
            }
        }
        for kept in SERVERS {
            match before["metadata"].get(kept) {
                Some(value) => object["metadata"][kept] = value.clone(),
                None => without(&mut object["metadata"], kept),
            }
        }
        if object == before {
            return Ok(before);
        }
        let said = |object: &Value| {
            let mut said = object.clone();
            without(&mut said, "metadata");
            without(&mut said, "status");
            said
        };
        if said(&object) != said(&before) {
            let generation = before["metadata"]["generation"].as_u64().unwrap_or(1) + 1;
            object["metadata"]["generation"] = generation.into();
        }
        let mut managed = json!({ "manager": by, "operation": "Update", "time": now() });
        if part == Part::Status {
            managed["subresource"] = "status".into();
        } else {
            object["metadata"]["managedFields"] = json!([]);
        }
        if let Some(all) = object["metadata"]["managedFields"].as_array_mut() {
            all.retain(|fields| fields["manager"] != by || fields["subresource"] != managed["subresource"]);
            all.push(managed);
        }
        let ends = object["metadata"]["deletionTimestamp"].is_string() && !is_held(&object);
        let done = self.put(place.clone(), Some(before), object, dry);
        if ends && !dry {
            self.remove(place);
        }
        Ok(done)
    }

    /// Deletes, or begins to where a finalizer holds it.
    pub(super) fn delete(&mut self, place: &Place, options: &Value, dry: bool) -> Result<Value, Refused> {
        let Some(object) = self.objects.get(place).cloned() else { return Err(not_found(place)) };
        for field in ["uid", "resourceVersion"] {
            let wanted = &options["preconditions"][field];
            if !wanted.is_null() && object["metadata"][field] != *wanted {
                let told = format!("Precondition failed: {field} in precondition does not match");
                return Err((409, "Conflict", told));
            }
        }
        let uid = object["metadata"]["uid"].clone();
        if is_held(&object) && !dry {
            let mut marked = object.clone();
            marked["metadata"]["deletionTimestamp"] = now().into();
            return Ok(self.put(place.clone(), Some(object), marked, false));
        }
        if !dry {
            self.remove(place);
        }
        let details = json!({ "name": place.2, "group": place.0.0, "kind": place.0.1, "uid": uid });
        Ok(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        }))
    }

    fn remove(&mut self, place: &Place) {
        let Some(mut object) = self.objects.remove(place) else { return };
        self.count += 1;
        let before = Some(object.clone());
        object["metadata"]["resourceVersion"] = self.count.to_string().into();
        self.note(Change { count: self.count, place: place.clone(), before, object, deleted: true });
    }

    fn put(&mut self, place: Place, before: Option<Value>, mut object: Value, dry: bool) -> Value {
        if dry {
            return object;
        }
        self.count += 1;
        object["metadata"]["resourceVersion"] = self.count.to_string().into();
        self.objects.insert(place.clone(), object.clone());
        if place.0.1 == "customresourcedefinitions" {
            for resource in Resource::of_definition(&object) {
                self.resources.retain(|r| r.id() != resource.id() || r.version != resource.version);
                self.resources.push(resource);
            }
        }
        self.note(Change { count: self.count, place, before, object: object.clone(), deleted: false });
        object
    }

    fn note(&mut self, change: Change) {
        self.changes.push_back(change);
        while self.changes.len() > KEPT {
            self.forgotten = self.changes.pop_front().map_or(self.forgotten, |c| c.count);
        }
    }

    fn resource(&self, place: &Place) -> Option<&Resource> {
        self.resources.iter().find(|r| r.id() == place.0)
    }
}

/// What of `metadata` is the server's alone.
const SERVERS: [&str; 6] =
    ["uid", "creationTimestamp", "generation", "managedFields", "resourceVersion", "deletionTimestamp"];

pub(super) fn not_found(place: &Place) -> Refused {
    (404, "NotFound", format!("{} {:?} not found", place.0.1, place.2))
}

pub(super) fn without(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.shift_remove(field);
    }
}

fn is_held(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())
}

/// RFC 3339 in whole seconds, as Kubernetes writes times.
fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    date_of(seconds)
}

fn date_of(seconds: u64) -> String {
    let (days, of_day) = (i64::try_from(seconds / 86_400).unwrap_or(0), seconds % 86_400);
    // Days to a date of the civil calendar, counted from the first of March of the year 0.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
