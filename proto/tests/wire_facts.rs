//! Holds names, numbers and types to those that other servers' clients were generated with.
//!
//! `wire_facts.txt` has those of Triton's Python client 2.73, read from the descriptors in its package, and
//! `torchserve_facts.txt` those of the interface that TorchServe published: one line for each field, enum value and
//! RPC of what the server implements. Messages of RPCs that it does not implement are left out of both.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use gristmill_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const TRITON: &str = include_str!("wire_facts.txt");
const TORCHSERVE: &str = include_str!("torchserve_facts.txt");

/// Of the Open Inference Protocol, which Triton's clients skip.
const BEYOND_TRITON: [&str; 1] = ["inference.ModelMetadataResponse.properties = 6: map<string, string>"];

#[test]
fn wire_format_is_tritons() {
    check("inference", TRITON, &BEYOND_TRITON);
    assert!(TRITON.lines().count() > 300, "the list is cut short");
}

#[test]
fn wire_format_is_torchserves() {
    check("org.pytorch.serve.grpc", TORCHSERVE, &[]);
}

/// Compares packages that begin with `packages` with `facts`; `beyond` may be there besides.
fn check(packages: &str, facts: &str, beyond: &[&str]) {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut ours = Vec::new();
    for file in files.file.iter().filter(|file| file.package().starts_with(packages)) {
        assert_eq!(file.syntax(), "proto3", "{} decides how numbers are packed", file.name());
        let package = file.package();
        file.enum_type.iter().for_each(|item| list_enum(&mut ours, package, item));
        file.message_type.iter().for_each(|message| list_message(&mut ours, package, message));
        for service in &file.service {
            for method in &service.method {
                ours.push(format!(
                    "{package}.{}.{}({}{}) returns ({}{})",
                    service.name(),
                    method.name(),
                    if method.client_streaming() { "stream " } else { "" },
                    method.input_type().trim_start_matches('.'),
                    if method.server_streaming() { "stream " } else { "" },
                    method.output_type().trim_start_matches('.'),
                ));
            }
        }
    }
    let facts: Vec<&str> = facts.lines().collect();
    let missing: Vec<_> = facts.iter().filter(|fact| !ours.iter().any(|line| line == *fact)).collect();
    let surplus: Vec<_> = ours
        .iter()
        .filter(|line| !facts.contains(&line.as_str()) && !beyond.contains(&line.as_str()))
        .collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "only in the facts: {missing:#?}\nonly here: {surplus:#?}"
    );
}

fn list_message(lines: &mut Vec<String>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    if message.field.is_empty() {
        lines.push(format!("{name} {{}}"));
    }
    message.enum_type.iter().for_each(|item| list_enum(lines, &name, item));
    for nested in &message.nested_type {
        if !is_map_entry(nested) {
            list_message(lines, &name, nested);
        }
    }
    for field in &message.field {
        let map = message
            .nested_type
            .iter()
            .find(|nested| is_map_entry(nested) && field.type_name() == format!(".{name}.{}", nested.name()));
        let kind = match map {
            Some(entry) => format!("map<{}, {}>", type_name(&entry.field[0]), type_name(&entry.field[1])),
            None if field.label() == Label::Repeated => format!("repeated {}", type_name(field)),
            None => type_name(field),
        };
        let choice = match field.oneof_index {
            Some(index) => format!(" in {}", message.oneof_decl[index as usize].name()),
            None => String::new(),
        };
        lines.push(format!("{name}.{} = {}: {kind}{choice}", field.name(), field.number()));
    }
}

fn list_enum(lines: &mut Vec<String>, scope: &str, item: &EnumDescriptorProto) {
    for value in &item.value {
        lines.push(format!("{scope}.{}.{} = {}", item.name(), value.name(), value.number()));
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn type_name(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}
