// The tariff in JavaScript. With Node 20, in this directory:
//
//   npm install --no-save apache-flink-statefun@3.3.0 google-protobuf@3.21.4
//   node server.js 8000
//   cargo run --release --example polyglot -- --remote http://localhost:8000/

const http = require("http");
const { StateFun, messageBuilder, egressMessageBuilder } = require("apache-flink-statefun");

const FREE_SECONDS = 20 * 60 * 60;

const functions = new StateFun();

functions.bind({
    typename: "phones/tariff",
    specs: [{ name: "used", type: StateFun.intType() }],
    fn(context, message) {
        const seconds = message.asInt();
        const used = (context.storage.used ?? 0) + seconds;
        context.storage.used = used;
        const beyond = Math.max(0, used - FREE_SECONDS);
        const { typename, id } = context.caller;
        context.send(messageBuilder({ typename, id, value: Math.min(seconds, beyond) }));
        if (0 < beyond && beyond <= seconds) {
            const value = `phone ${context.self.id}: the free hours are used up`;
            const valueType = StateFun.stringType();
            context.send(egressMessageBuilder({ typename: "phones/notices", value, valueType }));
        }
    }
});

http.createServer(functions.handler()).listen(Number(process.argv[2] ?? 8000));
