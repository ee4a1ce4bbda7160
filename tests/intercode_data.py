"""A folder like InterCode's: two small databases of our own, four questions, recorded runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentcascade.envs.intercode_sql import answers, labels, runs, schema, tasks
from agentcascade.envs.intercode_sql.results import databases

CACHED: tuple[Any, ...] = (
    *(tasks.load_tasks, runs.recorded_runs, databases, schema.describe_database, labels.first_asked),
    *(answers._own, answers._samples, answers._intercode, answers.verdicts),
)
DUMP = """\
-- MySQL dump
CREATE DATABASE  IF NOT EXISTS `zoo` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;
USE `zoo`;
DROP TABLE IF EXISTS `Animal`;
CREATE TABLE `Animal` (
  `ID` int NOT NULL AUTO_INCREMENT,
  `Name` varchar(20) COLLATE utf8mb4_general_ci DEFAULT NULL,
  `Weight_(kg)` double DEFAULT '0',
  `Born` date DEFAULT NULL,
  PRIMARY KEY (`ID`),
  KEY `name_key` (`Name`)
) ENGINE=InnoDB AUTO_INCREMENT=5 DEFAULT CHARSET=utf8mb4;
LOCK TABLES `Animal` WRITE;
/*!40000 ALTER TABLE `Animal` DISABLE KEYS */;
INSERT INTO `Animal` VALUES (1,'Leo','190','2010-05-01'),(2,'O\\'Hara; the ''cat''',4,'2019-01-31'),(3,'leo',5.5,NULL);
UNLOCK TABLES;
CREATE DATABASE IF NOT EXISTS `empty_one`;
CREATE TABLE `nothing` (
  `x` int DEFAULT NULL
) ENGINE=InnoDB;
"""
QUESTIONS: list[dict[str, Any]] = [
    {"db": "zoo", "gold": "SELECT Name FROM Animal ORDER BY ID", "query": "Names by id?", "hardness": "easy"},
    {"db": "zoo", "gold": "SELECT count(*) FROM animal", "query": "How many?", "hardness": "easy", "db_tables": {}},
    {"db": "zoo", "gold": "select COUNT(*) from animal;", "query": "What is the number?", "hardness": "easy"},
    {"db": "empty_one", "gold": "SELECT x FROM nothing", "query": "What is there?"},
]


def recorded_run(query: str, actions: list[str], thoughts: bool = False, final: float = 1.0) -> dict[str, Any]:
    turns: dict[str, Any] = {
        "actions": actions,
        "observations": ["[]"] * len(actions),
        "rewards": [final] * len(actions),
    }
    if thoughts:
        turns["thoughts"] = [f"thought\n{i}" for i in range(len(actions))]
    return {"query": query, "turn_history": turns, "summary": {"max_reward": final}}


def clear_caches() -> None:
    """Forget what was read of another folder."""
    for function in CACHED:
        function.cache_clear()


def data_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, *, copies: int = 1) -> Path:
    """Fill `folder`, and make it $INTERCODE_DATA, with a cache of its own; questions are there in several copies."""
    folder.mkdir(exist_ok=True)
    (folder / "ic_spider_dbs.sql").write_text(DUMP, encoding="utf-8")
    (folder / "ic_spider_dev.json").write_text(json.dumps(QUESTIONS * copies), encoding="utf-8")
    gpt4 = {str(i): recorded_run(q["query"], ["SHOW TABLES", q["gold"]]) for i, q in enumerate(QUESTIONS[:3])}
    (folder / "ic_sql_multiturn_gpt-4_10_turns.json").write_text(json.dumps(gpt4), encoding="utf-8")
    gpt3 = {"0": recorded_run(QUESTIONS[0]["query"], ["execute[DESC animal]", "submit"], thoughts=True, final=0.0)}
    (folder / "ic_sql_react_10_turns.json").write_text(json.dumps(gpt3), encoding="utf-8")
    for model in ("gpt-3.5-1", "gpt-3.5_10", "text-bison-001_10", "chat-bison-001_10"):
        (folder / f"ic_sql_multiturn_{model}_turns_handicap.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("INTERCODE_DATA", str(folder))
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(folder / "cache"))
    clear_caches()
    return folder
