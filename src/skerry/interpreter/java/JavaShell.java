import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Scanner;
import jdk.jshell.Diag;
import jdk.jshell.EvalException;
import jdk.jshell.JShell;
import jdk.jshell.JShellException;
import jdk.jshell.Snippet;
import jdk.jshell.SnippetEvent;
import jdk.jshell.SourceCodeAnalysis;
import jdk.jshell.SourceCodeAnalysis.Completeness;
import jdk.jshell.UnresolvedReferenceException;
import sun.misc.Signal;

/**
 * The interpreter protocol (docs/reference/interpreter-protocol.md) in front of the JDK's own JShell, in one process: user
 * code runs in this virtual machine, so that its output needs no second one to come through.
 */
public final class JavaShell {
    private static final PrintStream EVENTS = new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);
    private static final int TEXT_MAX = 16_384;

    private final JShell shell;
    private final Map<String, String> globals = new LinkedHashMap<>();
    private String directory;
    private String run;
    private int executions;
    private volatile boolean running;
    private volatile boolean interrupted;

    private JavaShell(PrintStream out, PrintStream err) {
        shell = JShell.builder().executionEngine("local").out(out).err(err).build();
        for (String name : List.of("java.io.*", "java.math.*", "java.net.*", "java.nio.file.*", "java.util.*",
                "java.util.concurrent.*", "java.util.function.*", "java.util.regex.*", "java.util.stream.*")) {
            shell.eval("import " + name + ";");
        }
        shell.eval("1 + 1"); // the compiler is loaded now, not at the first run
        for (Snippet snippet : shell.snippets().filter(s -> s.kind() == Snippet.Kind.VAR).toList()) {
            shell.drop(snippet);
        }
    }

    public static void main(String[] arguments) {
        JavaShell[] self = new JavaShell[1];
        PrintStream out = new Captured(text -> self[0].output("stdout", text));
        PrintStream err = new Captured(text -> self[0].output("stderr", text));
        long began = System.nanoTime();
        self[0] = new JavaShell(out, err);
        System.setOut(out);
        System.setErr(err);
        Signal.handle(new Signal("INT"), signal -> self[0].interrupt());
        send("\"event\":\"ready\",\"language\":\"java\",\"version\":" + quoted(System.getProperty("java.version"))
                + ",\"seconds\":" + String.format(Locale.ROOT, "%.3f", (System.nanoTime() - began) / 1e9));
        Scanner requests = new Scanner(System.in, StandardCharsets.UTF_8).useDelimiter("\n");
        System.setIn(new java.io.ByteArrayInputStream(new byte[0]));
        while (requests.hasNext()) {
            self[0].handle(new Json(requests.next()).object());
        }
        Runtime.getRuntime().halt(0);
    }

    @SuppressWarnings("unchecked")
    private void handle(Map<String, Object> request) {
        Map<String, Object> env = (Map<String, Object>) request.getOrDefault("env", Map.of());
        switch (String.valueOf(request.get("op"))) {
            case "run" -> run((String) request.get("id"), (String) request.get("code"), env == null ? Map.of() : env);
            case "configure" -> {
                if (env != null) {
                    env.forEach((name, value) -> configured(name, (String) value));
                }
                if (request.get("cwd") instanceof String cwd && !cwd.equals(directory)) {
                    directory = cwd;
                    System.setProperty("user.dir", made(cwd));
                }
                if (request.get("entropy") instanceof String entropy) {
                    Fresh.reseed(entropy);
                }
                send("\"event\":\"configured\"");
            }
            case "ping" -> send("\"event\":\"pong\"");
            default -> { }
        }
    }

    /** What a program has changed since stays changed when the same is said again, to a copy. */
    private void configured(String name, String value) {
        if (!value.equals(globals.put(name, value))) {
            System.setProperty(name, value);
        }
    }

    private static String made(String directory) {
        new File(directory).mkdirs();
        return directory;
    }

    private void run(String id, String code, Map<String, Object> env) {
        run = id;
        env.forEach((name, value) -> System.setProperty(name, (String) value));
        interrupted = false;
        running = true;
        try {
            evaluate(code);
        } catch (RuntimeException | StackOverflowError fault) {
            error(fault.getClass().getName(), String.valueOf(fault.getMessage()), fault.toString());
        }
        running = false;
        for (String name : env.keySet()) {
            if (globals.containsKey(name)) {
                System.setProperty(name, globals.get(name));
            } else {
                System.clearProperty(name);
            }
        }
        executions++;
        send("\"event\":\"done\",\"id\":" + quoted(run) + ",\"execution_count\":" + executions);
    }

    /** Snippet by snippet, up to the first that fails; the value of the last one is the cell's. */
    private void evaluate(String code) {
        SourceCodeAnalysis analysis = shell.sourceCodeAnalysis();
        String left = code.strip();
        while (!left.isEmpty()) {
            var next = analysis.analyzeCompletion(left);
            String source = next.completeness() == Completeness.CONSIDERED_INCOMPLETE || next.source() == null ? left : next.source();
            left = next.completeness().isComplete() ? next.remaining().strip() : "";
            List<SnippetEvent> events = shell.eval(source);
            for (SnippetEvent event : events) {
                if (event.causeSnippet() == null && failed(event)) {
                    return;
                }
            }
            if (left.isEmpty()) {
                events.stream().filter(event -> event.causeSnippet() == null).forEach(this::value);
            }
        }
    }

    private void value(SnippetEvent event) {
        Snippet.SubKind kind = event.snippet().subKind();
        boolean shown = kind == Snippet.SubKind.TEMP_VAR_EXPRESSION_SUBKIND || kind == Snippet.SubKind.VAR_VALUE_SUBKIND
                || kind == Snippet.SubKind.OTHER_EXPRESSION_SUBKIND;
        if (shown && event.value() != null && !event.value().isEmpty()) {
            send("\"event\":\"result\",\"id\":" + quoted(run) + ",\"data\":{\"text/plain\":" + quoted(event.value()) + "},\"main\":true");
        }
    }

    /** Reports what went wrong with a snippet, if anything did. */
    private boolean failed(SnippetEvent event) {
        if (interrupted) {
            error("KeyboardInterrupt", "the code was interrupted", "KeyboardInterrupt: the code was interrupted");
            return true;
        }
        JShellException exception = event.exception();
        if (exception instanceof EvalException thrown) {
            String value = String.valueOf(thrown.getMessage());
            StringBuilder trace = new StringBuilder(thrown.getExceptionClassName() + ": " + value);
            for (StackTraceElement frame : thrown.getStackTrace()) {
                trace.append("\n\tat ").append(frame);
            }
            error(thrown.getExceptionClassName(), value, trace.toString());
            return true;
        }
        if (exception instanceof UnresolvedReferenceException) {
            error("UnresolvedReferenceException", "it uses what is not declared yet", exception.toString());
            return true;
        }
        if (event.status() != Snippet.Status.REJECTED) {
            return false;
        }
        StringBuilder all = new StringBuilder();
        for (Diag diagnostic : shell.diagnostics(event.snippet()).filter(Diag::isError).toList()) {
            all.append(all.isEmpty() ? "" : "\n").append(diagnostic.getMessage(Locale.ROOT));
        }
        error("CompilationException", all.toString(), event.snippet().source() + "\n" + all);
        return true;
    }

    private void interrupt() {
        if (running) {
            interrupted = true;
            shell.stop();
        }
    }

    private void output(String stream, String text) {
        for (int from = 0; from < text.length(); from += TEXT_MAX) {
            String part = text.substring(from, Math.min(text.length(), from + TEXT_MAX));
            send("\"event\":" + quoted(stream) + ",\"id\":" + quoted(run) + ",\"text\":" + quoted(part));
        }
    }

    private void error(String name, String value, String traceback) {
        send("\"event\":\"error\",\"id\":" + quoted(run) + ",\"name\":" + quoted(name) + ",\"value\":" + quoted(value)
                + ",\"traceback\":" + quoted(traceback));
    }

    private static void send(String fields) {
        synchronized (EVENTS) {
            EVENTS.print("{" + fields + "}\n");
            EVENTS.flush();
        }
    }

    private static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            switch (c) {
                case '"' -> json.append("\\\"");
                case '\\' -> json.append("\\\\");
                case '\n' -> json.append("\\n");
                default -> {
                    if (c < 0x20 || Character.isSurrogate(c) || c == 0x2028 || c == 0x2029) {
                        json.append(String.format("\\u%04x", (int) c));
                    } else {
                        json.append(c);
                    }
                }
            }
        }
        return json.append('"').toString();
    }

    private interface Sink {
        void take(String text);
    }

    /** What user code prints, an event for each write. */
    private static final class Captured extends PrintStream {
        Captured(Sink sink) {
            super(new OutputStream() {
                private final ByteArrayOutputStream held = new ByteArrayOutputStream();

                @Override
                public synchronized void write(int b) {
                    held.write(b);
                }

                @Override
                public synchronized void write(byte[] bytes, int offset, int length) {
                    held.write(bytes, offset, length);
                }

                @Override
                public synchronized void flush() {
                    if (held.size() > 0) {
                        sink.take(held.toString(StandardCharsets.UTF_8));
                        held.reset();
                    }
                }
            }, true, StandardCharsets.UTF_8);
        }

        @Override
        public void print(String text) {
            super.print(text);
            flush();
        }

        @Override
        public void write(byte[] bytes, int offset, int length) {
            super.write(bytes, offset, length);
            flush();
        }
    }

    /** As much of a JSON reader as requests need. */
    private static final class Json {
        private final String text;
        private int at;

        Json(String text) {
            this.text = text;
        }

        Map<String, Object> object() {
            Map<String, Object> found = new LinkedHashMap<>();
            expect('{');
            while (peek() != '}') {
                String name = string();
                expect(':');
                found.put(name, value());
                if (peek() == ',') {
                    at++;
                }
            }
            at++;
            return found;
        }

        private Object value() {
            char c = peek();
            if (c == '"') {
                return string();
            }
            if (c == '{') {
                return object();
            }
            int from = at;
            while (at < text.length() && ",}".indexOf(text.charAt(at)) < 0) {
                at++;
            }
            String word = text.substring(from, at).strip();
            return word.equals("null") ? null : word;
        }

        private String string() {
            expect('"');
            StringBuilder found = new StringBuilder();
            while (text.charAt(at) != '"') {
                char c = text.charAt(at++);
                if (c != '\\') {
                    found.append(c);
                    continue;
                }
                char escaped = text.charAt(at++);
                switch (escaped) {
                    case 'n' -> found.append('\n');
                    case 't' -> found.append('\t');
                    case 'r' -> found.append('\r');
                    case 'b' -> found.append('\b');
                    case 'f' -> found.append('\f');
                    case 'u' -> {
                        found.append((char) Integer.parseInt(text.substring(at, at + 4), 16));
                        at += 4;
                    }
                    default -> found.append(escaped);
                }
            }
            at++;
            return found.toString();
        }

        private char peek() {
            while (Character.isWhitespace(text.charAt(at))) {
                at++;
            }
            return text.charAt(at);
        }

        private void expect(char wanted) {
            if (peek() != wanted) {
                throw new IllegalArgumentException("expected " + wanted + " at " + at);
            }
            at++;
        }
    }
}

/** Random numbers that no copy of this process draws: the state that programs share is seeded anew. */
final class Fresh {
    private Fresh() { }

    static void reseed(String entropy) {
        byte[] bytes = new byte[64];
        try (var kernel = new java.io.FileInputStream("/dev/urandom")) {
            new java.io.DataInputStream(kernel).readFully(bytes);
        } catch (java.io.IOException unlikely) {
            // What the caller adds is enough.
        }
        java.security.SecureRandom source;
        try {
            source = java.security.SecureRandom.getInstance("SHA1PRNG"); // state of its own, all of it from here
        } catch (java.security.NoSuchAlgorithmException impossible) {
            return;
        }
        source.setSeed(bytes);
        source.setSeed(entropy.getBytes(StandardCharsets.UTF_8));
        renew("java.lang.Math$RandomNumberGeneratorHolder", "randomNumberGenerator", source);
        renew("java.util.Collections", "r", source);
        renew("java.util.Random", "seedUniquifier", source);
        renew("java.util.SplittableRandom", "defaultGen", source);
        renew("java.util.concurrent.ThreadLocalRandom", "seeder", source);
    }

    /** What this version of Java does not have, or does not let us see, stays. */
    private static void renew(String type, String field, java.util.Random source) {
        try {
            var found = Class.forName(type).getDeclaredField(field);
            found.setAccessible(true);
            Object state = found.get(null);
            if (state instanceof java.util.concurrent.atomic.AtomicLong number) {
                number.set(source.nextLong());
            } else if (state instanceof java.util.Random generator) {
                generator.setSeed(source.nextLong());
            }
        } catch (ReflectiveOperationException | RuntimeException missing) {
            return;
        }
    }
}
