//! `ping`, and then `hello`: a member of a replica set that was never initiated answers the first and is of no use.

use mongodb::bson::{Document, doc};
use mongodb::options::{ReadPreference, SelectionCriteria};

use crate::config::health::{MongodbProbe, Require, bounded};
use crate::health::outcome::Reason;
use crate::health::probe::{Answer, Failed, Found};
use crate::store::mongodb::{Mongo, Purpose, StoreError};

/// Asks one deployment.
#[derive(Debug)]
pub struct Prober {
    mongo: Mongo,
    require: Require,
}

// === impl Prober ===

impl Prober {
    pub fn new(probe: &MongodbProbe) -> Self {
        Self { mongo: Mongo::new(&probe.store, Purpose::Health).giving_up_before(probe.limit), require: probe.require }
    }

    pub async fn ask(&self) -> Answer {
        let refused = |error: StoreError| Failed::saying(Reason::from(error.reason()), error.to_string());
        let database = self.mongo.database().await.map_err(refused)?;
        let member = match self.require {
            Require::Any => ReadPreference::Nearest { options: None },
            Require::Primary => ReadPreference::Primary,
        };
        let run = |command| database.run_command(command).selection_criteria(SelectionCriteria::ReadPreference(member.clone()));
        run(doc! { "ping": 1 }).await.map_err(|error| refused(StoreError::from_driver(&error)))?;
        let hello = run(doc! { "hello": 1 }).await.map_err(|error| refused(StoreError::from_driver(&error)))?;
        judge(&hello, self.require)
    }
}

/// What the member says of itself. Pure.
fn judge(hello: &Document, require: Require) -> Answer {
    let flag = |name| hello.get_bool(name).unwrap_or(false);
    let set = hello.get_str("setName").ok();
    let is_router = hello.get_str("msg").is_ok_and(|message| message == "isdbgrid");
    let role = match () {
        () if is_router => "router",
        () if flag("isWritablePrimary") && set.is_some() => "primary",
        () if flag("isWritablePrimary") => "standalone",
        () if flag("secondary") => "secondary",
        () if flag("arbiterOnly") => "arbiter",
        () => "neither primary nor secondary",
    };
    let detail = match set {
        Some(set) => format!("{role} of the set {}", bounded(set)),
        None => role.to_owned(),
    };
    let is_usable = match require {
        Require::Any => flag("isWritablePrimary") || flag("secondary"),
        Require::Primary => flag("isWritablePrimary"),
    };
    if is_usable { Ok(Found::saying(detail)) } else { Err(Failed::saying(Reason::NotPrimary, detail)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(hello: &Document, require: Require, expected: Result<&str, &str>) {
        let found = judge(hello, require).map_err(|failed| failed.detail.unwrap()).map(|found| found.detail.unwrap());
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn a_member_is_judged_by_what_it_says_of_itself() {
        check(&doc! { "isWritablePrimary": true }, Require::Any, Ok("standalone"));
        check(&doc! { "isWritablePrimary": true }, Require::Primary, Ok("standalone"));
        check(&doc! { "isWritablePrimary": true, "msg": "isdbgrid" }, Require::Primary, Ok("router"));
        check(&doc! { "isWritablePrimary": true, "setName": "rs0" }, Require::Primary, Ok("primary of the set rs0"));
        let secondary = doc! { "isWritablePrimary": false, "secondary": true, "setName": "rs0" };
        check(&secondary, Require::Any, Ok("secondary of the set rs0"));
        check(&secondary, Require::Primary, Err("secondary of the set rs0"));
        check(&doc! { "isWritablePrimary": false, "arbiterOnly": true, "setName": "rs0" }, Require::Any, Err("arbiter of the set rs0"));
        check(&doc! { "isWritablePrimary": false }, Require::Any, Err("neither primary nor secondary"));
    }
}
