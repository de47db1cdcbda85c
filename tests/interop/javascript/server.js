// Serves the interop functions with StateFun's JavaScript SDK, unmodified.
//
// `server.js [--port PORT] [--version 1|2]` prints `listening on PORT` when it does, and ends when its
// standard input closes.
"use strict";

const http = require("http");
const { parseArgs } = require("util");
const {
    StateFun, egressMessageBuilder, kafkaEgressMessage, kinesisEgressMessage, messageBuilder,
} = require("apache-flink-statefun");
const { readCommands, writeResult } = require("./commands");

const INTERPRETER = "statefun.smoke.e2e/command-interpreter-fn";

const BoolType = StateFun.booleanType();
const IntType = StateFun.intType();
const FloatType = StateFun.floatType();
const StringType = StateFun.stringType();
const UserType = StateFun.jsonType("interop/user");
const NoteType = StateFun.customType("interop/note", text => Buffer.from(text),
    bytes => Buffer.from(bytes).toString());
// The SDK has no numbers of 64 bits. Their bytes are kept as they are.
const same = bytes => Buffer.from(bytes);
const LongType = StateFun.customType("io.statefun.types/long", same, same);
const DoubleType = StateFun.customType("io.statefun.types/double", same, same);
const CommandsType = StateFun.customType("statefun.smoke.e2e/commands", same, same);
const ResultType = StateFun.customType("statefun.smoke.e2e/verification-result", writeResult, same);

const statefun = new StateFun();
let requests = 0;

function emit(context, typename, value, valueType) {
    context.send(egressMessageBuilder({ typename, value, valueType }));
}

const emitText = (context, text) => emit(context, "interop/texts", text, StringType);
const emitSum = (context, number) => emit(context, "interop/sums", number, IntType);
const shown = value => value === null ? "-" : `${value}`;
const unknown = what => new Error(`what is ${what}?`);

statefun.bind({
    typename: "interop/greeter",
    specs: [{ name: "seen", type: IntType }],
    fn(context, message) {
        context.storage.seen += 1;
        const text = `Hello ${message.asString()}, for the ${context.storage.seen}th time`;
        const caller = context.caller;
        if (caller !== null) {
            context.send(messageBuilder({ typename: caller.typename, id: caller.id, value: text }));
        }
        emitText(context, text);
    },
});

const KINDS = {
    as_bool: BoolType,
    as_int: IntType,
    as_long: LongType,
    as_float: FloatType,
    as_double: DoubleType,
    as_string: StringType,
    as_note: NoteType,
    as_user: UserType,
};

statefun.bind({
    typename: "interop/values",
    specs: Object.entries(KINDS).map(([name, type]) => ({ name, type })),
    fn(context, message) {
        if (message.isString() && message.asString() === "!clear") {
            Object.keys(KINDS).forEach(name => { context.storage[name] = null; });
            return;
        }
        const found = Object.entries(KINDS).find(([, type]) => message.is(type));
        if (found === undefined) {
            throw unknown(message.valueTypeName);
        }
        const [name, type] = found;
        const before = context.storage[name];
        if (before !== null) {
            emit(context, "interop/values", before, type);
        }
        const value = message.as(type);
        context.storage[name] = value;
        emit(context, "interop/values", value, type);
    },
});

statefun.bind({
    typename: "interop/keeper",
    specs: [
        { name: "written", type: StringType, expireAfterWrite: 1000 },
        { name: "called", type: StringType, expireAfterCall: 1000 },
        { name: "kept", type: StringType },
    ],
    fn(context, message) {
        const state = context.storage;
        const [what, value] = message.asString().split(" ");
        switch (what) {
            case "set":
                state.written = state.called = state.kept = value;
                break;
            case "get":
                emitText(context, `written=${shown(state.written)} called=${shown(state.called)} `
                    + `kept=${shown(state.kept)}`);
                break;
            case "poke":
                break;
            default:
                throw unknown(what);
        }
    },
});

statefun.bind({
    typename: "interop/scheduler",
    fn(context, message) {
        const [what, ...words] = message.asString().split(" ");
        switch (what) {
            case "after": {
                const [delay, token, text] = words;
                const { typename, id } = context.self;
                const own = messageBuilder({ typename, id, value: `fired ${text}` });
                context.sendAfter(Number(delay), own, token === "-" ? undefined : token);
                break;
            }
            case "cancel":
                context.cancelDelayedMessage(words[0]);
                break;
            case "fired":
                emitText(context, words[0]);
                break;
            default:
                throw unknown(what);
        }
    },
});

statefun.bind({
    typename: "interop/forwarder",
    fn(context, message) {
        const [typename, id, value] = message.asString().split(" ");
        context.send(messageBuilder({ typename, id, value }));
    },
});

statefun.bind({
    typename: "interop/records",
    fn(context, message) {
        const [what, to, key, value] = message.asString().split(" ");
        const typename = "interop/records";
        switch (what) {
            case "kafka":
                context.send(kafkaEgressMessage({ typename, topic: to, key, value }));
                break;
            case "kinesis":
                context.send(kinesisEgressMessage({ typename, stream: to, partitionKey: key, value }));
                break;
            default:
                throw unknown(what);
        }
    },
});

statefun.bind({
    typename: "interop/adder",
    specs: [{ name: "sum", type: IntType }],
    fn(context, message) {
        context.storage.sum += message.asInt();
        emitSum(context, context.storage.sum);
    },
});

statefun.bind({
    typename: "interop/requests",
    fn: context => emitSum(context, requests),
});

statefun.bind({
    typename: "interop/failing",
    fn(context, message) {
        if (message.asString() === "fail") {
            throw new Error("it was told to");
        }
        emitText(context, message.asString());
    },
});

statefun.bind({
    typename: "interop/shared",
    specs: [
        { name: "text", type: StringType },
        { name: "number", type: IntType },
        { name: "note", type: NoteType },
    ],
    fn(context, message) {
        const state = context.storage;
        const [what, text, number] = message.asString().split(" ");
        switch (what) {
            case "write":
                state.text = text;
                state.number = Number(number);
                state.note = text;
                break;
            case "read":
                emitText(context, `${shown(state.text)} ${shown(state.number)} ${shown(state.note)}`);
                break;
            default:
                throw unknown(what);
        }
    },
});

// Binds what is not the same in all versions.
function bindVersion(version) {
    const first = { name: "first", type: IntType };
    const second = { name: "second", type: IntType };
    statefun.bind({
        typename: "interop/changing",
        specs: version === "1" ? [first] : [first, second],
        fn(context) {
            context.storage.first += 1;
            if (version !== "1") {
                context.storage.second += 1;
            }
            const counted = version === "1" ? null : context.storage.second;
            emitText(context, `first=${context.storage.first} second=${shown(counted)}`);
        },
    });
    if (version !== "1") {
        statefun.bind({
            typename: "interop/appeared",
            fn: (context, message) => emitText(context, `appeared ${message.asString()}`),
        });
    }
}

statefun.bind({
    typename: INTERPRETER,
    specs: [{ name: "state", type: IntType }],
    fn(context, message) {
        const told = ({ number, commands }) => messageBuilder({
            typename: INTERPRETER, id: `${number}`, value: commands, valueType: CommandsType,
        });
        for (const command of readCommands(message.as(CommandsType))) {
            switch (command.kind) {
                case "increment":
                    context.storage.state += 1;
                    break;
                case "send":
                    context.send(told(command));
                    break;
                case "sendAfter":
                    context.sendAfter(1, told(command));
                    break;
                case "sendEgress":
                    emit(context, "statefun.smoke.e2e/discard-sink", "discarded", StringType);
                    break;
                case "verify": {
                    const actual = context.storage.state ?? 0;
                    const result = { id: Number(context.self.id), expected: command.number, actual };
                    emit(context, "statefun.smoke.e2e/verification-sink", result, ResultType);
                    break;
                }
            }
        }
    },
});

const { values: options } = parseArgs({
    options: {
        port: { type: "string", default: "0" },
        version: { type: "string", default: "1" },
    },
});
bindVersion(options.version);
const handle = statefun.handler();
const server = http.createServer((request, response) => {
    requests += 1;
    handle(request, response);
});
server.listen(Number(options.port), "127.0.0.1", () => {
    console.log(`listening on ${server.address().port}`);
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
