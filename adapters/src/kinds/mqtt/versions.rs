//! How the two versions say hello, and what their refusals mean.

use mqtt_protocol_core::mqtt;
use mqtt_protocol_core::mqtt::packet::v3_1_1 as v3;
use mqtt_protocol_core::mqtt::packet::v5_0 as v5;
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode};

use super::Hello;
use crate::contract::ErrorClass;

pub(super) fn connect_v3(hello: &Hello, seconds: u16) -> Result<v3::Connect, mqtt::result_code::MqttError> {
    let packet = v3::Connect::builder().client_id(hello.client_id.as_str())?;
    let packet = packet.clean_session(!hello.persistent).keep_alive(seconds);
    match &hello.login {
        Some((user, password)) => packet.user_name(user.as_str())?.password(password.as_bytes().to_vec())?.build(),
        None => packet.build(),
    }
}

pub(super) fn connect_v5(hello: &Hello, seconds: u16) -> Result<v5::Connect, mqtt::result_code::MqttError> {
    let packet = v5::Connect::builder().client_id(hello.client_id.as_str())?;
    let mut props: mqtt::packet::Properties = vec![mqtt::packet::ReceiveMaximum::new(hello.receive_max.max(1))?.into()];
    if hello.persistent {
        props.push(mqtt::packet::SessionExpiryInterval::new(hello.expiry_s)?.into());
    }
    let packet = packet.clean_start(!hello.persistent).keep_alive(seconds).props(props);
    match &hello.login {
        Some((user, password)) => packet.user_name(user.as_str())?.password(password.as_bytes().to_vec())?.build(),
        None => packet.build(),
    }
}

const LOGIN: &str = "the server refused the login: check user, password and client_id";

pub(super) fn refused_v3(code: ConnectReturnCode) -> (ErrorClass, String) {
    match code {
        ConnectReturnCode::BadUserNameOrPassword | ConnectReturnCode::NotAuthorized => {
            (ErrorClass::Auth, format!("{LOGIN} ({code})"))
        }
        ConnectReturnCode::ServerUnavailable => (ErrorClass::Transient, "the server is not available".to_owned()),
        _ => {
            (ErrorClass::Permanent, format!("the server refused the connection ({code}); check version and client_id"))
        }
    }
}

pub(super) fn refused_v5(code: ConnectReasonCode) -> (ErrorClass, String) {
    use ConnectReasonCode as C;
    match code {
        C::BadUserNameOrPassword | C::NotAuthorized | C::Banned | C::BadAuthenticationMethod => {
            (ErrorClass::Auth, format!("{LOGIN} ({code})"))
        }
        C::ServerUnavailable | C::ServerBusy | C::QuotaExceeded | C::ConnectionRateExceeded | C::UnspecifiedError => {
            (ErrorClass::Transient, format!("the server cannot take the connection now ({code})"))
        }
        _ => {
            (ErrorClass::Permanent, format!("the server refused the connection ({code}); check version and client_id"))
        }
    }
}
