#!lua
-- review: a step of an application for full access, but for its approval
--
-- (That one changes the org as well, and is a part of `set`.) The same said again does nothing. Each step has a
-- version and a row in the org's audit.
--
-- uses base audit review
-- ARGV  4 by         who says so
--       5 org
--       6 number     of the application
--       7 how        ask | answer | reject | withdraw
--       8 text       the question, the answer, or why
--       9 checklist  reject: JSON, kept as it is; else ''
--      10 most       questions and answers that are kept of an application
--
-- Replies  {'stepped'}
--          {'unknown'}        no such org, or application
--          {'stage', stage}   the step cannot be taken from there
--          {'full'}           as much was asked and answered as may be

local by, org, number, how, text, checklist, most = unpack(arg, 1, 7)
local obstacle = cannot_step(org, number, how, by, text)
if obstacle == 'unknown' then return reply('unknown') end
if obstacle == 'said' then return reply('stepped') end
if obstacle then return reply('stage', obstacle) end
local talks = how == 'ask' or how == 'answer'
if talks and redis.call('LLEN', application(org, number) .. ':talk') >= tonumber(most) then return reply('full') end

audit(org, by, text, {step(org, number, how, by, text, checklist)})
return reply('stepped')
