//! The golden schema: what was once on the wire keeps its name, number and type. New lines are added to `golden.txt` by hand; lines of it
//! change only together with the protocol version.

#![allow(clippy::unwrap_used)]

use prost::Message as _;
use prost_types::field_descriptor_proto::Label;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::BTreeSet;

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn field(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let kind = match field.type_name() {
        "" => field.r#type().as_str_name(),
        named => short(named),
    };
    let repeated = if field.label() == Label::Repeated {
        "repeated "
    } else {
        ""
    };
    format!(
        "{}.{} = {} {repeated}{kind}",
        message.name(),
        field.name(),
        field.number()
    )
}

fn schema() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in FileDescriptorSet::decode(fleet_proto::DESCRIPTORS).unwrap().file {
        for message in &file.message_type {
            assert!(
                message.nested_type.is_empty() && message.enum_type.is_empty(),
                "{}: keep types at the top, where the golden file sees them",
                message.name()
            );
            lines.extend(message.field.iter().map(|one| field(message, one)));
        }
        for kind in &file.enum_type {
            let line = |value: &prost_types::EnumValueDescriptorProto| {
                format!("{}.{} = {}", kind.name(), value.name(), value.number())
            };
            lines.extend(kind.value.iter().map(line));
        }
        for service in &file.service {
            lines.extend(service.method.iter().map(|method| {
                let stream = |on: bool| if on { "stream " } else { "" };
                format!(
                    "{}.{}({}{}) returns ({}{})",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    short(method.input_type()),
                    stream(method.server_streaming()),
                    short(method.output_type())
                )
            }));
        }
    }
    lines
}

#[test]
fn nothing_is_removed_renumbered_or_retyped() {
    let golden: BTreeSet<String> = include_str!("golden.txt").lines().map(str::to_owned).collect();
    let now = schema();
    let lost: Vec<_> = golden.difference(&now).collect();
    assert!(
        lost.is_empty(),
        "no longer on the wire as it was: {lost:#?}; older programs would misunderstand it"
    );
    let new: Vec<_> = now.difference(&golden).collect();
    assert!(new.is_empty(), "add to golden.txt: {new:#?}");
}
