use super::{Meta, Timestamp, Uid, api_types};

api_types! {
    /// core/v1 Event. Events of type `Normal` are not read.
    pub struct Event {
        pub metadata: Meta,
        #[serde(rename = "type")]
        pub type_: String,
        pub reason: String,
        pub message: String,
        pub involved_object: InvolvedObject,
        pub first_timestamp: Option<Timestamp>,
        pub last_timestamp: Option<Timestamp>,
        pub event_time: Option<Timestamp>,
        pub count: i32,
        pub series: Option<EventSeries>,
        pub source: EventSource,
        pub reporting_component: String,
    }

    pub struct InvolvedObject {
        pub api_version: String,
        pub kind: String,
        pub namespace: String,
        pub name: String,
        pub uid: Uid,
        /// `spec.containers{app}` if the event is about one container.
        pub field_path: String,
    }

    pub struct EventSeries {
        pub count: i32,
        pub last_observed_time: Option<Timestamp>,
    }

    pub struct EventSource {
        pub component: String,
        pub host: String,
    }
}

impl Event {
    /// When it was last seen. Depending on the age of the reporting component, one of four fields is set.
    pub fn last_seen(&self) -> Option<Timestamp> {
        let series = self.series.as_ref().and_then(|series| series.last_observed_time);
        [series, self.last_timestamp, self.event_time, self.first_timestamp]
            .into_iter()
            .flatten()
            .max()
            .or(self.metadata.creation_timestamp)
    }

    /// How often it was seen; at least 1.
    pub fn times(&self) -> i32 {
        self.series.as_ref().map_or(0, |series| series.count).max(self.count).max(1)
    }

    /// The container it is about, if `fieldPath` names one.
    pub fn container(&self) -> Option<&str> {
        self.involved_object.field_path.split_once('{')?.1.strip_suffix('}')
    }
}
