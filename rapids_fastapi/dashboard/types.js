/**
 * What the API answers, as far as the page uses it. The application's OpenAPI document has everything.
 *
 * @typedef {{version: string, user: {name: string, permissions: string[]},
 *   dead_letter_queues: {name: string, groups: string[]}[], streams: string[]}} Capabilities
 * @typedef {{encoding: "json" | "text" | "base64" | "omitted" | "withheld", value: any, size: number,
 *   truncated: boolean}} Payload
 * @typedef {{id: string, state: "dead" | "replayed" | "discarded", event_type: string, event_id: string,
 *   handler: string, group: string, stream: string, reason: string, error_type: string, error: string,
 *   deliveries: number, failed_at: string | null, correlation_id: string, fingerprint: string, replay_count: number,
 *   payload: Payload}} LetterSummary
 * @typedef {{at: string, error_type: string, error: string, consumer: string, delivery: number,
 *   position?: string}} Attempt
 * @typedef {{action: string, at: string, actor: string, reason: string, scope: string, stream: string,
 *   entry_id: string, operation: string, data: Payload | null,
 *   diff: {pointer: string, action: string, before: any, after: any}[]}} Change
 * @typedef {{outcome: string, event_class: string | null, problems: {pointer: string, message: string}[],
 *   problem_count: number}} ParseCheck
 * @typedef {LetterSummary & {dlq: string, entry_id: string, timestamp: string, causation_id: string,
 *   schema_version: string, metadata: Payload, traceback: string, position: string, attempts: any[],
 *   attempts_left_out: number, consumer: string, replay_of: string | null, history: Change[], replays: any[],
 *   parse_check: ParseCheck, links: {causation_tree: string | null, letters: any[]}}} Letter
 * @typedef {{group: string, handler: string, event_type: string, reason: string, error_type: string, position: string,
 *   fingerprint: string, count: number, first_at: string | null, last_at: string | null}} Cause
 * @typedef {{id: string, dlq: string, kind: "replay" | "discard" | "restore", state: string, selector: any,
 *   scope: string, rate: number | null, max_items: number | null, actor: string, reason: string, created_at: string,
 *   updated_at: string, ended_at: string | null, total: number, total_exact: boolean, done: number, skipped: number,
 *   failed: number, errors: {letter_id: string, error: string}[], owner: string, canary?: Canary | null}} Operation
 * @typedef {{share: number, wait: number, failed_again: number, why: string, stopped: string | null,
 *   steps: {step: number, size: number, sent: number, handled: number, failed_again: number, waiting: number}[],
 *   failures: {letter_id: string, outcome: string, error_type: string, error: string, new_letter_id: string,
 *     new_error_type: string, new_error: string}[]}} Canary
 */
export {};
