package interop;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.function.BiConsumer;
import java.util.function.IntSupplier;
import org.apache.flink.statefun.sdk.java.Address;
import org.apache.flink.statefun.sdk.java.AddressScopedStorage;
import org.apache.flink.statefun.sdk.java.Context;
import org.apache.flink.statefun.sdk.java.StatefulFunction;
import org.apache.flink.statefun.sdk.java.StatefulFunctionSpec;
import org.apache.flink.statefun.sdk.java.StatefulFunctions;
import org.apache.flink.statefun.sdk.java.TypeName;
import org.apache.flink.statefun.sdk.java.ValueSpec;
import org.apache.flink.statefun.sdk.java.io.KafkaEgressMessage;
import org.apache.flink.statefun.sdk.java.io.KinesisEgressMessage;
import org.apache.flink.statefun.sdk.java.message.EgressMessageBuilder;
import org.apache.flink.statefun.sdk.java.message.Message;
import org.apache.flink.statefun.sdk.java.message.MessageBuilder;
import org.apache.flink.statefun.sdk.java.types.SimpleType;
import org.apache.flink.statefun.sdk.java.types.Type;
import org.apache.flink.statefun.sdk.java.types.Types;

/** The functions, apart from the one that follows commands. */
final class Functions {
  private static final TypeName TEXTS = TypeName.typeNameFromString("interop/texts");
  private static final TypeName SUMS = TypeName.typeNameFromString("interop/sums");
  private static final TypeName VALUES = TypeName.typeNameFromString("interop/values");
  private static final TypeName RECORDS = TypeName.typeNameFromString("interop/records");

  /** What travels as interop/user. */
  record User(String name) {}

  private static final ObjectMapper JSON = new ObjectMapper();
  private static final Type<String> NOTE =
      SimpleType.simpleImmutableTypeFrom(
          TypeName.typeNameFromString("interop/note"),
          text -> text.getBytes(UTF_8),
          bytes -> new String(bytes, UTF_8));
  private static final Type<User> USER =
      SimpleType.simpleImmutableTypeFrom(
          TypeName.typeNameFromString("interop/user"),
          JSON::writeValueAsBytes,
          bytes -> JSON.readValue(bytes, User.class));

  private Functions() {}

  static StatefulFunctions of(int version, IntSupplier requests) {
    StatefulFunctions functions = new StatefulFunctions();
    bind(functions, "interop/greeter", Functions::greet, SEEN);
    bind(
        functions,
        "interop/values",
        Functions::keepValues,
        AS_BOOL, AS_INT, AS_LONG, AS_FLOAT, AS_DOUBLE, AS_STRING, AS_NOTE, AS_USER);
    bind(functions, "interop/keeper", Functions::keepWhile, WRITTEN, CALLED, KEPT);
    bind(functions, "interop/scheduler", Functions::schedule);
    bind(functions, "interop/forwarder", Functions::forward);
    bind(functions, "interop/records", Functions::record);
    bind(functions, "interop/adder", Functions::add, SUM);
    bind(
        functions,
        "interop/requests",
        (context, message) -> emit(context, SUMS, Types.integerType(), requests.getAsInt()));
    bind(functions, "interop/failing", Functions::fail);
    bind(functions, "interop/shared", Functions::share, TEXT, NUMBER, SHARED_NOTE);
    bind(functions, Smoke.NAME, Smoke::interpret, Smoke.STATE);
    switch (version) {
      case 1 -> bind(functions, "interop/changing", Functions::change, FIRST);
      case 2 -> {
        bind(functions, "interop/changing", Functions::changed, FIRST, SECOND);
        bind(functions, "interop/appeared", Functions::appear);
      }
      default -> throw new IllegalArgumentException("there is no version " + version);
    }
    return functions;
  }

  private static void bind(
      StatefulFunctions functions,
      String name,
      BiConsumer<Context, Message> body,
      ValueSpec<?>... states) {
    StatefulFunction function =
        (context, message) -> {
          body.accept(context, message);
          return context.done();
        };
    functions.withStatefulFunction(
        StatefulFunctionSpec.builder(TypeName.typeNameFromString(name))
            .withValueSpecs(states)
            .withSupplier(() -> function));
  }

  /** Emits a value of this type. */
  static <T> void emit(Context context, TypeName egress, Type<T> type, T value) {
    context.send(EgressMessageBuilder.forEgress(egress).withCustomType(type, value).build());
  }

  private static void emitText(Context context, String text) {
    emit(context, TEXTS, Types.stringType(), text);
  }

  private static IllegalArgumentException unknown(Message message) {
    return new IllegalArgumentException("unknown: " + message.asUtf8String());
  }

  /** Counts one more in a state, and returns the new count. */
  private static int increment(Context context, ValueSpec<Integer> spec) {
    int count = context.storage().get(spec).orElse(0) + 1;
    context.storage().set(spec, count);
    return count;
  }

  private static final ValueSpec<Integer> SEEN = ValueSpec.named("seen").withIntType();

  private static void greet(Context context, Message message) {
    int seen = increment(context, SEEN);
    String text = "Hello %s, for the %dth time".formatted(message.asUtf8String(), seen);
    context
        .caller()
        .ifPresent(
            caller -> context.send(MessageBuilder.forAddress(caller).withValue(text).build()));
    emitText(context, text);
  }

  private static final ValueSpec<Boolean> AS_BOOL = ValueSpec.named("as_bool").withBooleanType();
  private static final ValueSpec<Integer> AS_INT = ValueSpec.named("as_int").withIntType();
  private static final ValueSpec<Long> AS_LONG = ValueSpec.named("as_long").withLongType();
  private static final ValueSpec<Float> AS_FLOAT = ValueSpec.named("as_float").withFloatType();
  private static final ValueSpec<Double> AS_DOUBLE = ValueSpec.named("as_double").withDoubleType();
  private static final ValueSpec<String> AS_STRING =
      ValueSpec.named("as_string").withUtf8StringType();
  private static final ValueSpec<String> AS_NOTE = ValueSpec.named("as_note").withCustomType(NOTE);
  private static final ValueSpec<User> AS_USER = ValueSpec.named("as_user").withCustomType(USER);

  private static void keepValues(Context context, Message message) {
    if (message.isUtf8String() && message.asUtf8String().equals("!clear")) {
      AddressScopedStorage storage = context.storage();
      storage.remove(AS_BOOL);
      storage.remove(AS_INT);
      storage.remove(AS_LONG);
      storage.remove(AS_FLOAT);
      storage.remove(AS_DOUBLE);
      storage.remove(AS_STRING);
      storage.remove(AS_NOTE);
      storage.remove(AS_USER);
    } else if (message.isBoolean()) {
      keepValue(context, AS_BOOL, message.asBoolean());
    } else if (message.isInt()) {
      keepValue(context, AS_INT, message.asInt());
    } else if (message.isLong()) {
      keepValue(context, AS_LONG, message.asLong());
    } else if (message.isFloat()) {
      keepValue(context, AS_FLOAT, message.asFloat());
    } else if (message.isDouble()) {
      keepValue(context, AS_DOUBLE, message.asDouble());
    } else if (message.isUtf8String()) {
      keepValue(context, AS_STRING, message.asUtf8String());
    } else if (message.is(NOTE)) {
      keepValue(context, AS_NOTE, message.as(NOTE));
    } else if (message.is(USER)) {
      keepValue(context, AS_USER, message.as(USER));
    } else {
      throw new IllegalArgumentException("unknown type: " + message.valueTypeName());
    }
  }

  /** Emits what was kept before and what comes, and keeps that. */
  private static <T> void keepValue(Context context, ValueSpec<T> spec, T value) {
    context.storage().get(spec).ifPresent(before -> emit(context, VALUES, spec.type(), before));
    context.storage().set(spec, value);
    emit(context, VALUES, spec.type(), value);
  }

  private static final ValueSpec<String> WRITTEN =
      ValueSpec.named("written").thatExpireAfterWrite(Duration.ofSeconds(1)).withUtf8StringType();
  private static final ValueSpec<String> CALLED =
      ValueSpec.named("called").thatExpiresAfterCall(Duration.ofSeconds(1)).withUtf8StringType();
  private static final ValueSpec<String> KEPT = ValueSpec.named("kept").withUtf8StringType();

  private static void keepWhile(Context context, Message message) {
    AddressScopedStorage storage = context.storage();
    String text = message.asUtf8String();
    if (text.startsWith("set ")) {
      String value = text.substring("set ".length());
      storage.set(WRITTEN, value);
      storage.set(CALLED, value);
      storage.set(KEPT, value);
    } else if (text.equals("get")) {
      String written = storage.get(WRITTEN).orElse("-");
      String called = storage.get(CALLED).orElse("-");
      String kept = storage.get(KEPT).orElse("-");
      emitText(context, "written=%s called=%s kept=%s".formatted(written, called, kept));
    } else if (!text.equals("poke")) {
      throw unknown(message);
    }
  }

  private static void schedule(Context context, Message message) {
    String text = message.asUtf8String();
    String[] words = text.split(" ", 4);
    if (words[0].equals("after") && words.length == 4) {
      Duration delay = Duration.ofMillis(Long.parseLong(words[1]));
      Message fired = MessageBuilder.forAddress(context.self()).withValue("fired " + words[3]).build();
      if (words[2].equals("-")) {
        context.sendAfter(delay, fired);
      } else {
        context.sendAfter(delay, words[2], fired);
      }
    } else if (words[0].equals("cancel") && words.length == 2) {
      context.cancelDelayedMessage(words[1]);
    } else if (text.startsWith("fired ")) {
      emitText(context, text.substring("fired ".length()));
    } else {
      throw unknown(message);
    }
  }

  private static void forward(Context context, Message message) {
    String[] words = message.asUtf8String().split(" ", 3);
    if (words.length < 3) {
      throw unknown(message);
    }
    Address target = new Address(TypeName.typeNameFromString(words[0]), words[1]);
    context.send(MessageBuilder.forAddress(target).withValue(words[2]).build());
  }

  private static void record(Context context, Message message) {
    String[] words = message.asUtf8String().split(" ", 4);
    if (words.length < 4) {
      throw unknown(message);
    }
    switch (words[0]) {
      case "kafka" -> context.send(
          KafkaEgressMessage.forEgress(RECORDS)
              .withTopic(words[1])
              .withUtf8Key(words[2])
              .withUtf8Value(words[3])
              .build());
      case "kinesis" -> context.send(
          KinesisEgressMessage.forEgress(RECORDS)
              .withStream(words[1])
              .withUtf8PartitionKey(words[2])
              .withUtf8Value(words[3])
              .build());
      default -> throw unknown(message);
    }
  }

  private static final ValueSpec<Integer> SUM = ValueSpec.named("sum").withIntType();

  private static void add(Context context, Message message) {
    int sum = context.storage().get(SUM).orElse(0) + message.asInt();
    context.storage().set(SUM, sum);
    emit(context, SUMS, Types.integerType(), sum);
  }

  private static void fail(Context context, Message message) {
    if (message.asUtf8String().equals("fail")) {
      throw new IllegalStateException("it was told to fail");
    }
    emitText(context, message.asUtf8String());
  }

  private static final ValueSpec<String> TEXT = ValueSpec.named("text").withUtf8StringType();
  private static final ValueSpec<Integer> NUMBER = ValueSpec.named("number").withIntType();
  private static final ValueSpec<String> SHARED_NOTE = ValueSpec.named("note").withCustomType(NOTE);

  private static void share(Context context, Message message) {
    AddressScopedStorage storage = context.storage();
    String[] words = message.asUtf8String().split(" ", 3);
    if (words[0].equals("write") && words.length == 3) {
      storage.set(TEXT, words[1]);
      storage.set(NUMBER, Integer.parseInt(words[2]));
      storage.set(SHARED_NOTE, words[1]);
    } else if (words[0].equals("read") && words.length == 1) {
      String text = storage.get(TEXT).orElse("-");
      String number = storage.get(NUMBER).map(String::valueOf).orElse("-");
      String note = storage.get(SHARED_NOTE).orElse("-");
      emitText(context, text + " " + number + " " + note);
    } else {
      throw unknown(message);
    }
  }

  private static final ValueSpec<Integer> FIRST = ValueSpec.named("first").withIntType();
  private static final ValueSpec<Integer> SECOND = ValueSpec.named("second").withIntType();

  /** What interop/changing was in version 1. */
  private static void change(Context context, Message message) {
    emitText(context, "first=%d second=-".formatted(increment(context, FIRST)));
  }

  /** What it is in version 2. */
  private static void changed(Context context, Message message) {
    int first = increment(context, FIRST);
    int second = increment(context, SECOND);
    emitText(context, "first=%d second=%d".formatted(first, second));
  }

  private static void appear(Context context, Message message) {
    emitText(context, "appeared " + message.asUtf8String());
  }
}
