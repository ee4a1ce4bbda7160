CREATE DATABASE IF NOT EXISTS `zoo`;
USE `zoo`;
CREATE TABLE `animal` (
  `ID` int NOT NULL,
  `Name` varchar(20) DEFAULT NULL,
  `Legs` int DEFAULT NULL,
  PRIMARY KEY (`ID`)
) ENGINE=InnoDB;
INSERT INTO `animal` VALUES (1,'Leo',4),(2,'Kiwi',2),(3,'Kaa',0),(4,'Rex',4);
CREATE TABLE `keeper` (
  `ID` int NOT NULL,
  `Name` varchar(20) DEFAULT NULL,
  PRIMARY KEY (`ID`)
) ENGINE=InnoDB;
INSERT INTO `keeper` VALUES (1,'Ann'),(2,'Bob');
