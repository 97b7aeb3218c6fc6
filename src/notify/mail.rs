//! Mails by SMTP: one connection a mail, secured as configured, with a deadline over all of it.

use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::{AsyncSmtpTransport, Error};
use lettre::{AsyncTransport as _, Tokio1Executor};

use crate::config::notify::{Email, MailTls};
use crate::config::trust::Trust;
use crate::notify::http::read;
use crate::notify::message::Message;
use crate::notify::outcome::{Outcome, Reason};
use crate::notify::payload::email;
use crate::store::fault::Fault;

/// How long all of it may take; servers that suspect spam let a client wait.
const LIMIT: Duration = Duration::from_secs(30);

/// Sends one mail.
pub(super) async fn send(settings: &Email, trust: &Trust, message: &Message) -> Outcome {
    match tokio::time::timeout(LIMIT, attempt(settings, trust, message)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Later(Reason::Timeout, None),
    }
}

async fn attempt(settings: &Email, trust: &Trust, message: &Message) -> Outcome {
    let Ok(mail) = email::mail(message, &settings.from, &settings.to) else { return Outcome::Refused(Reason::Rejected) };
    let tls = match secured(settings, trust) {
        Ok(tls) => tls,
        Err(_) => return Outcome::Later(Reason::Tls, None),
    };
    let mut builder =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.server).port(settings.port).tls(tls).timeout(Some(LIMIT));
    if let Some((user, password)) = &settings.login {
        match read(password).await {
            Ok(password) => builder = builder.credentials(Credentials::new(user.clone(), password.expose().to_owned())),
            Err(reason) => return Outcome::Later(reason, None),
        }
    }
    match builder.build().send(mail).await {
        Ok(_) => Outcome::Delivered,
        Err(error) => outcome(&error),
    }
}

fn secured(settings: &Email, trust: &Trust) -> Result<Tls, Error> {
    let mut parameters = TlsParameters::builder(settings.server.clone());
    if let Trust::Only(authorities) = trust {
        parameters = parameters.certificate_store(CertificateStore::None);
        for certificate in authorities.certificates() {
            parameters = parameters.add_root_certificate(Certificate::from_der(certificate.to_vec())?);
        }
    }
    Ok(match settings.tls {
        MailTls::Starttls => Tls::Required(parameters.build()?),
        MailTls::Tls => Tls::Wrapper(parameters.build()?),
        MailTls::None => Tls::None,
    })
}

/// The text of an error quotes the server, which may quote anything: only its kind is used.
fn outcome(error: &Error) -> Outcome {
    if error.is_permanent() {
        return Outcome::Refused(Reason::Rejected);
    }
    let reason = match Fault::of(error) {
        _ if error.is_timeout() => Reason::Timeout,
        _ if error.is_transient() => Reason::ServerError,
        Fault::Tls | Fault::TlsExpired | Fault::TlsName => Reason::Tls,
        Fault::Refused | Fault::Reset | Fault::Dns | Fault::Unreachable => Reason::Connection,
        _ if error.is_tls() => Reason::Tls,
        _ if error.is_response() || error.is_client() => Reason::Protocol,
        _ => Reason::Connection,
    };
    Outcome::Later(reason, None)
}
