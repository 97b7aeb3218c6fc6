//! A message as a mail of plain text. Headers are made by a library that encodes what is not plain; lines are joined
//! before, so that no text of an alert begins one.

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message as Mail};

use crate::notify::message::Message;
use crate::notify::payload::{description, footer, headline, labels, period};
use crate::notify::text::{characters, cut};

/// A subject is a line.
const SUBJECT: usize = 200;
/// How many alerts are described.
const DESCRIBED: usize = 100;

/// The subject.
#[must_use]
pub fn subject(message: &Message) -> String {
    cut(&headline(message), SUBJECT, characters).into_owned()
}

/// The text.
#[must_use]
pub fn text(message: &Message) -> String {
    let subjects = message.subjects();
    let mut parts = vec![headline(message)];
    for alert in subjects.iter().take(DESCRIBED) {
        let status = if alert.is_firing() { "FIRING" } else { "RESOLVED" };
        parts.push(format!("{status} {}\n{}\n{}", period(alert), description(alert), labels(alert)));
    }
    if subjects.len() > DESCRIBED {
        parts.push(format!("… and {} more", subjects.len() - DESCRIBED));
    }
    let footer = footer(message, str::to_owned);
    if !footer.is_empty() {
        parts.push(footer.join("\n"));
    }
    parts.join("\n\n") + "\n"
}

/// The mail.
///
/// # Errors
/// When it cannot be made of these addresses.
pub fn mail(message: &Message, from: &Mailbox, to: &[Mailbox]) -> Result<Mail, lettre::error::Error> {
    let builder = Mail::builder().from(from.clone()).subject(subject(message)).header(ContentType::TEXT_PLAIN);
    let builder = to.iter().fold(builder, |builder, mailbox| builder.to(mailbox.clone()));
    let mut mail = builder.body(text(message))?;
    // No answer by somebody's absence notice is wanted (RFC 3834).
    let name = HeaderName::new_from_ascii_str("Auto-Submitted");
    mail.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
    Ok(mail)
}
