//! `ping`, and then `hello`: a member of a replica set that was never initiated answers the first and is of no use.

use mongodb::bson::doc;

use crate::health::outcome::Reason;
use crate::health::probe::Answer;
use crate::store::mongodb::{Mongo, StoreError, is_usable};

pub(super) async fn ask(mongo: &Mongo) -> Answer {
    let refused = |error: StoreError| (Reason::from(error.reason()), Some(error.to_string()));
    let database = mongo.database().await.map_err(refused)?;
    let command = |command| database.run_command(command);
    command(doc! { "ping": 1 }).await.map_err(|error| refused(StoreError::from_driver(&error)))?;
    let hello = command(doc! { "hello": 1 }).await.map_err(|error| refused(StoreError::from_driver(&error)))?;
    if is_usable(&hello) { Ok(()) } else { Err((Reason::NotPrimary, Some("the server is neither primary nor secondary".to_owned()))) }
}
