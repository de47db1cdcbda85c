// The messages of StateFun's smoke test, as far as remote interpreters are sent them, read and written
// with protobuf's own reader and writer. `examples/smoke/commands.proto` describes them.
"use strict";

const { BinaryReader, BinaryWriter } = require("google-protobuf");

// A number, commands and a text: `Send`, `SendAfter`, and with the number alone `Verify`.
function readFields(reader) {
    const fields = { number: 0, commands: new Uint8Array(), text: "" };
    while (reader.nextField()) {
        switch (reader.getFieldNumber()) {
            case 1: fields.number = reader.readInt64(); break;
            case 2: fields.commands = reader.readBytes(); break;
            case 3: fields.text = reader.readString(); break;
            default: reader.skipField();
        }
    }
    return fields;
}

const KINDS = { 1: "increment", 2: "send", 3: "sendAfter", 4: "sendEgress", 6: "verify" };

// Commands, each with its kind and its fields. Those in a command stay bytes, since they are sent on.
function readCommands(bytes) {
    const commands = [];
    const reader = new BinaryReader(bytes);
    while (reader.nextField()) {
        if (reader.getFieldNumber() !== 1) {
            reader.skipField();
            continue;
        }
        const command = new BinaryReader(reader.readBytes());
        if (!command.nextField()) {
            throw new Error("a command says nothing");
        }
        const kind = KINDS[command.getFieldNumber()];
        if (kind === undefined) {
            throw new Error(`nothing is known of command ${command.getFieldNumber()}`);
        }
        commands.push({ kind, ...readFields(new BinaryReader(command.readBytes())) });
    }
    return commands;
}

function writeResult({ id, expected, actual }) {
    const writer = new BinaryWriter();
    const fields = [id, expected, actual];
    fields.forEach((number, at) => {
        if (number !== 0) {
            writer.writeInt64(at + 1, number);
        }
    });
    return Buffer.from(writer.getResultBuffer());
}

module.exports = { readCommands, writeResult };
